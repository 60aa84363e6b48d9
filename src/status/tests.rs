//! Tables and screens of stated reports.

use super::limit::Limit;
use super::live::Table;
use super::live::live_table;
use super::report::{ClassNumbers, Group, Link, Now, Pool, Rule, Status, User};
use super::rows::{Column, Order};
use super::{Board, Key, Size, Then, fitted, is_over, keys, table};
use crate::model::By;
use crate::tree;

pub(super) fn numbers(now: Option<Now>) -> ClassNumbers {
    ClassNumbers {
        rate_bit: 1_000_000,
        ceil_bit: 20_000_000,
        asked_rate_bit: None,
        prio: Some(0),
        quantum: Some(1_500),
        burst_bytes: 1_600,
        cburst_bytes: 1_600,
        boost_bytes: None,
        leaf: None,
        sent_bytes: 0,
        sent_packets: 0,
        drops: 0,
        overlimits: 0,
        backlog_bytes: 0,
        lends: 0,
        borrows: 0,
        now,
    }
}

fn now(now_bit: u64, of_ceil_percent: u64) -> Now {
    Now { now_bit, of_ceil_percent, ..Now::default() }
}

fn user(name: &str, classid: &str, group: Option<&str>, now: Now) -> User {
    User {
        user: name.to_string(),
        owner: tree::Owner::User(tree::Key::new(name).unwrap()),
        uid: None,
        source: "users",
        group: group.map(str::to_string),
        limit: None,
        classid: classid.to_string(),
        class: numbers(Some(now)),
        processes: 2,
        since: None,
        guests: Vec::new(),
    }
}

fn group(name: &str, parent: Option<&str>, now: Now) -> Group {
    Group {
        group: name.to_string(),
        parent: parent.map(str::to_string),
        limit: None,
        classid: format!("1:f{name}"),
        class: numbers(Some(now)),
        processes: None,
    }
}

fn link(direction: &'static str, now: Now, users: Vec<User>, groups: Vec<Group>) -> Link {
    Link {
        dev: "eth0".to_string(),
        netns: 1,
        direction,
        classifier: Some("bpf"),
        rate_bit: 950_000_000,
        limit: None,
        now: Some(now),
        users,
        groups,
        default: Some(Pool {
            classid: "1:fffe".to_string(),
            class: numbers(Some(Now::default())),
            forwarded_packets: None,
            forwarded_v6_packets: None,
            guests: Vec::new(),
        }),
        unshaped: None,
        retired: Vec::new(),
        rules: None,
        beside: Vec::new(),
        warnings: Vec::new(),
        direct_packets: 0,
    }
}

fn report(links: Vec<Link>) -> Status {
    Status {
        version: 1,
        interval_ms: Some(1_000),
        links,
        foreign: Vec::new(),
        daemon: None,
        repairs: Vec::new(),
        policy: None,
        pending: None,
        quotas: Vec::new(),
        unclaimed: Vec::new(),
        default_connections: Vec::new(),
    }
}

/// Two groups, one in the other, each with a member; one user beside them; bob also downloads.
pub(super) fn busy() -> Status {
    let ann = Now { borrowed_percent: 40, queue_ms: 12, drops_in_1000: 320, ..now(9_860_000, 49) };
    let up = link(
        "egress",
        Now { queue_ms: 3, ..now(482_000_000, 51) },
        vec![
            user("ann", "1:10", Some("year1"), ann),
            user("bob", "1:11", Some("students"), now(0, 0)),
            user("日本語の名前はとても長い", "1:12", None, now(999, 0)),
        ],
        vec![group("students", None, now(9_860_000, 9)), group("year1", Some("students"), ann)],
    );
    let down = link(
        "ingress",
        now(12_000_000, 1),
        vec![user("bob", "1:11", Some("students"), now(12_000_000, 97))],
        vec![group("students", None, now(12_000_000, 12))],
    );
    report(vec![up, down])
}

#[test]
fn what_counters_show_to_be_wrong_is_said_below_the_link_in_as_many_lines_as_it_takes() {
    let mut status = busy();
    let warning = "of 81000 kB that came by eth0 in 1.0 s only 40000 kB went through its ifb";
    status.links[1].warnings = vec![warning.to_string()];
    let table = live_table(&status, 50);
    assert!(table.lines().all(|line| super::cells::width(line) <= 50), "{table}");
    let lines: Vec<&str> = table.lines().skip(2).take(2).map(str::trim).collect();
    assert_eq!(lines.join(" "), format!("! {warning}"), "{table}");
    let document = serde_json::to_value(&status).unwrap();
    assert_eq!(document["links"][1]["warnings"][0], warning);
    assert!(document["links"][0].get("warnings").is_none());
}

#[test]
fn what_arrives_has_no_classifier_of_its_own() {
    let mut status = busy();
    status.links[1].classifier = None;
    status.interval_ms = None;
    let text = table(&status, 0, None);
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("eth0")).collect();
    let expected = ["eth0  egress  rate 950mbit  classifier bpf", "eth0  ingress  rate 950mbit"];
    assert_eq!(heads, expected);
}

#[test]
fn both_directions_of_a_user_are_one_row_below_the_group() {
    let table = live_table(&busy(), 80);
    let expected = [
        "  USER                   UP      DOWN  OF CAP  BORROWED    QUEUE  DROPS/S  PROCS",
        "eth0  up 482mbit of 950mbit, 51%  down 12mbit of 950mbit, 1%  queue 3ms",
        "  [students]        9.8mbit    12mbit     12%        0%      0ms        0      4",
        "    [year1]         9.8mbit         -     49%       40%     12ms      0.4      2",
        "      ann           9.8mbit         -     49%       40%     12ms      0.4      2",
        "    bob                   0    12mbit     97%        0%      0ms        0      2",
        "  日本語の名前は…    999bit         -      0%        0%      0ms        0      2",
        "  (default)               0         0      0%        0%      0ms        0      -",
    ];
    assert_eq!(table.lines().collect::<Vec<_>>(), expected);
    let widest = |table: &str| table.lines().map(super::cells::width).max();
    assert_eq!(widest(&table), Some(80));
    let narrow = live_table(&busy(), 60);
    assert!(widest(&narrow).unwrap() <= 60, "{narrow}");
    let headings = narrow.lines().next().unwrap().split_whitespace().collect::<Vec<_>>();
    assert_eq!(headings, ["USER", "UP", "DOWN", "OF", "CAP", "QUEUE", "DROPS/S"]);
    for wide in 1..200 {
        let table = live_table(&busy(), wide);
        assert!(widest(&table).unwrap() <= wide.max(14), "{wide}: {table}");
    }
}

/// The names of the rows, with the group's brackets.
fn names(order: &Order) -> Vec<String> {
    let status = busy();
    let lines = Table::new(&status, order, 120, usize::MAX).lines(0..usize::MAX);
    let rows = lines.iter().filter(|line| line.starts_with(' '));
    rows.map(|row| row.split_whitespace().next().unwrap().to_string()).collect()
}

#[test]
fn rows_are_sorted_and_filtered_within_their_groups() {
    let long = "日本語の名前はとても長い";
    let by = |sort| Order { sort, ..Order::default() };
    let tree = ["[students]", "[year1]", "ann", "bob", long, "(default)"];
    assert_eq!(names(&by(Column::Up)), tree);
    let down = ["[students]", "bob", "[year1]", "ann", long, "(default)"];
    assert_eq!(names(&by(Column::Down)), down);
    // A group has all its members' processes.
    let processes = ["[students]", "bob", "[year1]", "ann", long, "(default)"];
    assert_eq!(names(&by(Column::Processes)), processes);
    let flat = |sort| Order { sort, flat: true, ..Order::default() };
    assert_eq!(names(&flat(Column::OfCap)), ["bob", "ann", long, "(default)"]);
    assert_eq!(names(&flat(Column::Name)), ["ann", "bob", long, "(default)"]);
    let only = |filter: &str| names(&Order { filter: filter.to_string(), ..Order::default() });
    assert_eq!(only("an"), ["[students]", "[year1]", "ann"]);
    assert_eq!(only("year"), ["[students]", "[year1]", "ann"]);
    assert_eq!(only("本"), [long]);
    assert_eq!(only("zoe"), Vec::<String>::new());
}

/// Whatever is sorted, filtered and scrolled: what a screen shows is a part of the whole list.
#[test]
fn a_part_of_the_list_is_the_same_as_the_whole_list_there() {
    let mut status = busy();
    let number = |at: u64| at * 7_919 % 31;
    let more = (0..200).map(|at| {
        let group = ["students", "year1"].into_iter().nth(number(at) as usize % 5);
        let now = Now { queue_ms: number(at + 5), ..now(number(at), number(at + 3)) };
        user(&format!("u{}", number(at) * 1_000 + at), &format!("1:1{at:x}"), group, now)
    });
    status.links[0].users.extend(more);
    let both_ways = status.links[0].users[7].clone();
    status.links[1].users.insert(0, both_ways);
    for sort in
        [Column::Up, Column::Down, Column::OfCap, Column::Queue, Column::Processes, Column::Name]
    {
        for (flat, filter) in [(false, ""), (true, ""), (false, "2"), (true, "7"), (false, "year")]
        {
            let order = Order { sort, flat, filter: filter.to_string() };
            let whole = Table::new(&status, &order, 80, usize::MAX);
            let all = whole.lines(0..usize::MAX);
            assert_eq!(all.len(), whole.len());
            for begin in [0, 1, 2, 5, 20, 150, 199, 500] {
                let end = begin + 21;
                let part = Table::new(&status, &order, 80, end);
                assert_eq!(part.len(), all.len(), "{order:?}");
                let shown: Vec<String> = all.iter().skip(begin).take(21).cloned().collect();
                assert_eq!(part.lines(begin..end), shown, "{order:?} from {begin} on");
            }
        }
    }
}

#[test]
fn a_group_without_what_is_above_it_is_shown_with_its_members() {
    let mut status = busy();
    for link in &mut status.links {
        link.groups.retain(|group| group.group == "year1");
        link.users.retain(|user| user.user == "ann");
    }
    let table = Table::new(&status, &Order::default(), 120, usize::MAX);
    let lines = table.lines(0..usize::MAX);
    let has = |name: &str| lines.iter().any(|line| line.trim_start().starts_with(name));
    assert!(has("[year1]") && has("ann"), "{lines:#?}");
}

#[test]
fn keys_change_the_screen_and_nothing_is_larger_than_it() {
    let mut help = Board::default();
    help.press(Key::Char('?'));
    let narrow = help.draw(&busy(), Size { rows: 24, columns: 60 }, false);
    assert!(narrow.iter().all(|line| !line.contains('…')), "{narrow:?}");
    let mut board = Board::default();
    let size = Size { rows: 6, columns: 60 };
    let screen = |board: &mut Board| board.draw(&busy(), size, false);
    let first = screen(&mut board);
    assert_eq!(first.len(), 6);
    assert_eq!(first[0], "shaper top  sorted by up  over 1.0 s");
    assert!(first[2].starts_with("eth0  up 482mbit"));
    assert!(first[5].starts_with("4 lines more  q quit"), "{first:?}");
    assert_eq!(board.press(Key::PageDown), Then::Draw);
    assert!(screen(&mut board)[2].trim_start().starts_with("ann"));
    assert_eq!(board.press(Key::End), Then::Draw);
    assert!(screen(&mut board)[4].trim_start().starts_with("(default)"));
    assert_eq!(board.press(Key::Home), Then::Draw);
    for (typed, filter) in [("/x", "x"), ("\u{7f}", ""), ("B", "b"), ("q", "bq"), ("\u{7f}", "b")] {
        typed.chars().for_each(|c| assert_eq!(board.press(Key::Char(c)), Then::Draw));
        assert_eq!(screen(&mut board)[5], format!("show only: {filter}_"));
    }
    assert_eq!(board.press(Key::Char('\n')), Then::Draw);
    assert!(screen(&mut board)[0].ends_with("only *b*"));
    assert_eq!(board.press(Key::Char('\u{1b}')), Then::Draw);
    assert_eq!(board.press(Key::Char('d')), Then::Draw);
    assert_eq!(board.press(Key::Char('z')), Then::Nothing);
    assert_eq!(board.press(Key::Char(' ')), Then::Draw);
    assert!(board.is_paused());
    assert_eq!(screen(&mut board)[0], "shaper top  sorted by down  over 1.0 s  stopped");
    assert_eq!(board.press(Key::Char('?')), Then::Draw);
    assert!(screen(&mut board)[0].starts_with("u d"));
    assert_eq!(board.press(Key::Char('q')), Then::Draw, "back from the help");
    assert_eq!(board.press(Key::Char('q')), Then::Quit);
    assert_eq!(board.press(Key::Char('\u{3}')), Then::Quit);
    // Headings stand out where colours may be.
    assert!(board.draw(&busy(), size, true)[1].starts_with("\x1b[7m"));
    for (rows, columns) in [(0, 0), (1, 1), (2, 200), (300, 3)] {
        assert!(board.draw(&busy(), Size { rows, columns }, false).len() <= rows);
    }
}

#[test]
fn keys_are_read_also_where_their_bytes_come_one_by_one() {
    let all = |bytes: &[u8]| keys(bytes, true).0;
    let c = Key::Char;
    assert_eq!(all("uü日".as_bytes()), [c('u'), c('ü'), c('日')]);
    assert_eq!(
        all(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"),
        [Key::Up, Key::Down, Key::PageUp, Key::PageDown]
    );
    assert_eq!(all(b"\x1b[H\x1b[F\x1b[1~\x1b[4~"), [Key::Home, Key::End, Key::Home, Key::End]);
    assert_eq!(all(b"\x1b"), [c('\u{1b}')]);
    assert_eq!(all(b"\x1bq"), [c('\u{1b}'), c('q')]);
    assert_eq!(all(b"\x1b[15~q\xff/"), [c('q'), c('/')], "F5, and what is no character");
    for (bytes, used) in [(&b"u\x1b"[..], 1), (b"\x1b[", 0), (b"\x1b[6", 0), (b"\xc3", 0)] {
        assert_eq!(keys(bytes, false).1, used, "{bytes:?}");
    }
}

#[test]
fn whoever_uses_more_than_asked_is_over() {
    assert!(is_over(&busy(), 96), "bob's downloads");
    assert!(!is_over(&busy(), 97));
    assert!(!is_over(&report(Vec::new()), 0));
}

#[test]
fn long_names_are_shortened_for_a_terminal_only() {
    let status = Status { interval_ms: None, ..busy() };
    let said = |wide| table(&status, 0, wide);
    let long = "日本語の名前はとても長い";
    assert!(said(None).contains(long) && said(Some(100)).contains(long));
    let at_80 = said(Some(80));
    assert!(at_80.lines().all(|line| super::cells::width(line) <= 80), "{at_80}");
}

/// Whatever stands in it: each row of a table is as wide as the others, and none wider than the
/// terminal.
#[test]
fn a_narrow_terminal_has_fewer_columns_and_none_breaks() {
    let mut status = Status { interval_ms: None, ..busy() };
    let link = &mut status.links[0];
    let names = [
        "e\u{301}le\u{300}ve",
        "🦀👩\u{1f3fd}🇩🇪",
        "नि\u{94d}",
        "u-with-a-very-long-name-of-his-own",
    ];
    let more = names.iter().enumerate();
    link.users.extend(more.map(|(at, name)| User {
        user: name.to_string(),
        ..user("x", &format!("e000:1{at}"), Some("students"), Now::default())
    }));
    (link.users[0].class.backlog_bytes, link.users[0].class.sent_bytes) = (999_999, 123_456_789);
    (link.users[1].class.ceil_bit, link.users[1].class.drops) = (42_750_000, 1_234_567);
    let rule = |rule, to: &str, packets| Rule {
        rule,
        to: to.to_string(),
        classid: "1:1a".to_string(),
        packets: Some(packets),
    };
    link.rules = Some(vec![rule(1, names[1], 7), rule(12, names[3], 123_456), rule(3, "日本", 0)]);
    link.warnings = vec!["of 81000 kB that came by eth0 only 40000 kB went through it".to_string()];
    let whole = table(&status, 0, None);
    let headings = |text: &str, first: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(first)).unwrap();
        line.split_whitespace().map(str::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(headings(&whole, "USER"), "USER CLASS RATE CEIL SENT DROPS BACKLOG PROCS");
    let blocks = |text: &str| {
        let mut blocks: Vec<Vec<usize>> = Vec::new();
        for line in text.lines() {
            match ["USER", "RULE"].iter().any(|it| line.trim_start().starts_with(it)) {
                true => blocks.push(vec![super::cells::width(line)]),
                false if !line.starts_with("  ") => blocks.push(Vec::new()),
                false => blocks.last_mut().unwrap().push(super::cells::width(line)),
            }
        }
        blocks.into_iter().filter(|block| block.len() > 1).collect::<Vec<_>>()
    };
    for wide in (1..200).map(Some).chain([None]) {
        let text = table(&status, 0, wide);
        // What ends in numbers ends in one column.
        let even = |block: &Vec<usize>| block.iter().all(|width| *width == block[0]);
        assert!(wide < Some(20) || blocks(&text).iter().all(even), "{wide:?}\n{text}");
        let Some(wide) = wide else { continue };
        let page = fitted(&text, wide);
        let fits = |line: &str| super::cells::width(line) <= wide;
        let is_a_word = |line: &str| line.split_whitespace().count() <= 1;
        assert!(page.lines().all(|it| fits(it) || is_a_word(it)), "{wide}\n{page}");
        assert!(wide < 20 || text.contains("  CEIL"), "{wide}\n{text}");
    }
    let narrow = table(&status, 0, Some(60));
    assert_eq!(headings(&narrow, "USER"), "USER CLASS RATE CEIL SENT");
    assert!(narrow.lines().any(|line| line.starts_with("    u-with-a") && line.contains('…')));
    let names = |text: &str| {
        let rows = text.lines().filter(|line| line.contains("  1:") || line.contains("  e000:"));
        rows.count()
    };
    assert_eq!(names(&narrow), names(&whole), "no row is lost");
}

#[test]
fn a_window_of_a_group_or_a_link_is_named_with_those_below() {
    let limit = |of: Option<&str>| {
        let of = of.map(str::to_string);
        let (why, until) = (Some("night".to_string()), Some("six".to_string()));
        Some(Limit { by: By::When, why, of, until })
    };
    let mut report = busy();
    let link = &mut report.links[0];
    let windows = |link: &Link| {
        let text = table(&report_of(link.clone()), 0, None);
        let lines = text.lines().filter(|line| line.contains("the window"));
        lines.map(|line| line.trim().to_string()).collect::<Vec<_>>()
    };
    link.groups[0].limit = limit(None);
    let group = link.groups[0].group.clone();
    let alone = format!("the window night holds until six, for [{group}]");
    assert_eq!(windows(link), [alone]);
    link.users[0].limit = limit(Some(&format!("group {group}")));
    let user = link.users[0].user.clone();
    let both = format!("the window night holds until six, for [{group}], and so for {user}");
    assert_eq!(windows(link), std::slice::from_ref(&both));
    link.limit = limit(Some(Limit::LINK));
    let of_link = "the window night holds until six, for the link".to_string();
    assert_eq!(windows(link), [both, of_link]);
}

fn report_of(link: Link) -> Status {
    Status { interval_ms: None, ..report(vec![link]) }
}

/// Both directions of a link say a window once, and of several links which one it is of.
#[test]
fn what_holds_somebody_is_below_the_table_of_what_goes_now() {
    let limit = |why: &str| {
        let (by, until) = (By::Quota, Some("six".to_string()));
        Some(Limit { by, why: Some(why.to_string()), of: None, until })
    };
    let mut status = busy();
    status.links[0].users[1].limit = limit("1GB today is used");
    status.links[1].users[0].limit = limit("1GB today is used");
    let below = |status: &Status| {
        let text = super::top_table(status, 80);
        let lines = text.lines().filter(|line| line.contains("the quota"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let line = "the quota (1GB today is used) holds until six, for bob";
    assert_eq!(below(&status), [line]);
    let mut board = Board::default();
    let screen = board.draw(&status, Size { rows: 24, columns: 80 }, false);
    assert!(screen.iter().any(|it| it == line), "{screen:#?}");
    assert!(table(&status, 0, None).contains(&format!("{line}\n")));
    let mut other = status.links[0].clone();
    other.dev = "eth1".to_string();
    other.users[1].limit = None;
    status.links.push(other);
    assert_eq!(below(&status), [format!("eth0: {line}")]);
    status.links[2].users[1].limit = limit("1GB today is used");
    assert_eq!(below(&status), [line]);
}
