//! The systemd units of `users`: which line claims which unit, and findings for names by which no
//! process can be found. Touches nothing.

use std::collections::{BTreeMap, HashMap};

use crate::policy::{
    Diagnostic, Findings, Follow, Kind, Pattern, Policy, Span, UnitRef, Written, closest, quote,
};

use super::Units;
use super::positions::{UserAt, users};
use super::twice::twice;

/// `there`: see [`crate::facts::Facts::units`].
pub(super) fn resolve(
    policy: &Policy,
    there: Option<&BTreeMap<String, String>>,
    findings: &mut Findings,
) -> Units {
    let mut seen: HashMap<UnitRef, (UserAt, Span)> = HashMap::new();
    let mut units = Units::default();
    for (user, line) in users(policy) {
        if line.follow == Follow::Effective {
            units.following.insert(line.key.value.clone());
        }
        for unit in line.units.iter().flatten() {
            let name = there.and_then(|there| found_as(unit, there, findings));
            let unit_ref = name.map_or(unit.value.clone(), UnitRef::Name);
            match seen.get(&unit_ref) {
                Some((other, _)) if *other == user => continue,
                Some((other, first)) => {
                    let what = format!("the unit {}", quote(unit_ref.as_str()));
                    findings.push(twice(policy, &what, (user, unit.at), (*other, *first)));
                    continue;
                }
                None => seen.insert(unit_ref.clone(), (user, unit.at)),
            };
            let key = line.key.value.clone();
            match unit_ref {
                UnitRef::Name(name) => drop(units.named.insert(name, key)),
                UnitRef::Pattern(pattern) => units.patterns.push((pattern, key)),
            }
        }
    }
    units
}

/// The unit in which a named unit's processes run, where that is another one (the name is an
/// alias). A finding where there is no such unit.
fn found_as(
    unit: &Written<UnitRef>,
    there: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Option<String> {
    match &unit.value {
        UnitRef::Name(name) => match there.get(name) {
            Some(found) if found == name => None,
            Some(found) => {
                let message = format!("{} is another name of {}", quote(name), quote(found));
                findings.push(Diagnostic::info(Kind::Claim, unit.at, message));
                Some(found.clone())
            }
            None => {
                if !template_of(name).is_some_and(|template| there.contains_key(&template)) {
                    findings.push(no_unit(name, unit.at, there));
                }
                None
            }
        },
        UnitRef::Pattern(pattern) => {
            // A scope exists only as long as its processes, so one that is missing is no mistake.
            if !pattern.as_str().ends_with(".scope") && !has_any(pattern, there) {
                let message = format!("no unit fits {} now", quote(pattern.as_str()));
                findings.push(
                    Diagnostic::warning(Kind::Claim, unit.at, message)
                        .help("a unit that comes counts at once; `systemctl list-unit-files` shows those that may"),
                );
            }
            None
        }
    }
}

/// Whether the pattern fits a unit that exists, or may fit an instance of a template that exists.
fn has_any(pattern: &Pattern, there: &BTreeMap<String, String>) -> bool {
    let instance = |name: &String| name.replacen("@.", "@x.", 1);
    there.keys().any(|name| pattern.fits(name) || pattern.fits(&instance(name)))
}

/// The template of an instance: `foo@.service` of `foo@bar.service`.
fn template_of(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once('@')?;
    let (_, kind) = rest.rsplit_once('.')?;
    Some(format!("{stem}@.{kind}"))
}

fn no_unit(name: &str, at: Span, there: &BTreeMap<String, String>) -> Diagnostic {
    let help = match closest(name, there.keys().map(String::as_str)) {
        Some(close) => format!("did you mean {}?", quote(close)),
        None => {
            "a unit that comes counts at once; `systemctl list-unit-files` shows those that may"
                .to_string()
        }
    };
    Diagnostic::warning(Kind::Claim, at, format!("there is no unit {}", quote(name))).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Report, parse};

    /// The findings for one line's units where the units `there` exist, and the patterns and names
    /// that the line has then.
    fn said(units: &str, there: &[(&str, &str)]) -> (String, Vec<String>) {
        let text =
            format!("version: 1\nlinks: {{eth0: }}\nusers: {{a: {{ceil: 1mbit, units: {units}}}}}");
        let policy = parse(&text, "p.yaml").unwrap();
        let there = there.iter().map(|(name, found)| (name.to_string(), found.to_string()));
        let mut findings = Findings::default();
        let units = resolve(&policy, Some(&there.collect()), &mut findings);
        let notes = findings.finish(&policy.source).unwrap();
        let report = Report::new(&policy.source, notes).to_string();
        let lines = report.lines().filter(|line| {
            line.starts_with("warning:") || line.starts_with("info:") || line.contains("help:")
        });
        let patterns = units.patterns.iter().map(|(pattern, _)| pattern.as_str().to_string());
        let names = units.named.into_keys().chain(patterns).collect();
        (lines.map(str::trim).collect::<Vec<_>>().join("\n"), names)
    }

    #[test]
    fn only_the_units_of_lines_that_say_so_follow_effective_uids() {
        // With an anchor and without.
        for anchor in ["", "&here "] {
            let text = format!(
                "version: 1\nlinks: {{eth0: }}\nusers:\n  files: {anchor}{{ceil: 1mbit, units: [smbd.service, \"ftp*.service\"], follow: effective}}\n  web: {{ceil: 1mbit, units: nginx.service}}\n"
            );
            let policy = parse(&text, "p.yaml").unwrap();
            let units = resolve(&policy, None, &mut Findings::default());
            let units_of = ["smbd.service", "ftp@1.service", "nginx.service", "cron.service"];
            let follows = units_of.map(|unit| units.follows(Some(unit)));
            assert_eq!(follows, [true, true, false, false], "{text}");
            assert!(!units.follows(None));
        }
    }

    #[test]
    fn a_unit_that_is_not_there_is_a_warning_and_an_alias_is_what_it_names() {
        let there = [
            ("ssh.service", "ssh.service"),
            ("sshd.service", "ssh.service"),
            ("getty@.service", "getty@.service"),
        ];
        let (text, names) = said("[sshd.service, getty@tty1.service]", &there);
        assert_eq!(text, "info: `sshd.service` is another name of `ssh.service`");
        assert_eq!(names, ["getty@tty1.service", "ssh.service"]);
        assert_eq!(
            said("ssg.service", &there).0,
            "warning: there is no unit `ssg.service`\n= help: did you mean `ssh.service`?"
        );
        let (text, names) =
            said("[\"getty@*.service\", getty@.service, \"docker-*.scope\"]", &there);
        assert_eq!((text.as_str(), names.len()), ("", 3));
        assert!(
            said("user@.service", &there)
                .0
                .starts_with("warning: no unit fits `user@?*.service` now")
        );
    }
}
