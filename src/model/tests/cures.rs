//! A cure cures: what a message says to write is a policy.

use super::*;

/// Policies that are refused, what each is told, and the policy of whoever does that.
const CASES: [(&str, &str, &str); 17] = [
    ("links: {eth0: unlimited}", "such as `1gbit`", "links: {eth0: 1gbit}"),
    ("links: {eth0: {rate: max}}", "such as `1gbit`", "links: {eth0: {rate: 1gbit}}"),
    ("links: {eth0: {rate: 0}}", "such as `1gbit`", "links: {eth0: {rate: 1gbit}}"),
    ("links: {eth0: {down: off}}", "remove `down`", "links: {eth0: }"),
    ("links: {eth0: {rate: 1gbit, down: 0}}", "remove `down`", "links: {eth0: {rate: 1gbit}}"),
    ("links: {eth0: {default: 0}}", "`5%`", "links: {eth0: {default: 5%}}"),
    ("links: {eth0: {default: {ceil: 0}}}", "`5%`", "links: {eth0: {default: {ceil: 5%}}}"),
    ("links: {eth0: {default: {ceil: off}}}", "`100%`", "links: {eth0: {default: {ceil: 100%}}}"),
    (
        "links: {eth0: {default: {rate: none, ceil: 50%}}}",
        "remove `rate`",
        "links: {eth0: {default: {ceil: 50%}}}",
    ),
    (
        "links: {eth0: {down: 1gbit, default: {down: 0}}}",
        "`5%`",
        "links: {eth0: {down: 1gbit, default: {down: 5%}}}",
    ),
    (
        "links: {eth0: }\nusers: {bob: {rate: 0, ceil: 9mbit}}",
        "remove `rate`",
        "links: {eth0: }\nusers: {bob: {ceil: 9mbit}}",
    ),
    (
        "links: {eth0: }\nusers: {bob: {rate: none}}",
        "`ceil: 100mbit`",
        "links: {eth0: }\nusers: {bob: {ceil: 100mbit}}",
    ),
    (
        "links: {eth0: {down: 1gbit}}\nusers: {bob: {down: {rate: 0, ceil: 9mbit}}}",
        "remove `rate`",
        "links: {eth0: {down: 1gbit}}\nusers: {bob: {down: {ceil: 9mbit}}}",
    ),
    (
        "links: {eth0: }\nusers: {bob: {ceil: 9mbit, boost: 0}}",
        "leave `boost` out",
        "links: {eth0: }\nusers: {bob: {ceil: 9mbit}}",
    ),
    (
        "links: {eth0: }\nusers: {bob: {ceil: 9mbit, boost: 0}}",
        "`500MiB`",
        "links: {eth0: }\nusers: {bob: {ceil: 90mbit, boost: 500MiB}}",
    ),
    ("links: {eth0: }\nusers: {bob: 0}", "`8bit`", "links: {eth0: }\nusers: {bob: 8bit}"),
    ("links: {eth0: }\nusers: {bob: max}", "`100%`", "links: {eth0: }\nusers: {bob: 100%}"),
];

#[test]
fn what_a_rate_that_cannot_be_is_told_to_be_can_be() {
    for (bad, cure, good) in CASES {
        let [bad, good] = [bad, good].map(|text| format!("version: 1\n{text}\n"));
        let Err(report) = policy::parse(&bad, "policies.yaml") else { panic!("no error: {bad}") };
        let help = report.first().and_then(|it| it.help.clone()).unwrap_or_default();
        assert!(help.contains(cure), "{bad}: {help}");
        let policy =
            policy::parse(&good, "policies.yaml").unwrap_or_else(|e| panic!("{good}: {e}"));
        let model = build(&policy, &host(), BuildOptions::default());
        assert!(model.is_ok(), "{good}: {:?}", model.err().map(|report| report.to_string()));
    }
}
