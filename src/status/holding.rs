//! Which windows and quotas give somebody his limits now, until when, and whom.

use std::collections::BTreeMap;

use super::limit::Limit;
use super::report::{Link, Status};
use crate::text::shown;

/// The lines of all links and both directions, each once. Where there are several links they say of
/// which one they are, unless they are of all.
pub(super) fn lines(status: &Status) -> Vec<String> {
    let mut links: Vec<&str> = Vec::new();
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for link in &status.links {
        let dev = link.dev.as_str();
        if !links.contains(&dev) {
            links.push(dev);
        }
        for line in of_link(link) {
            match lines.iter_mut().find(|(other, _)| *other == line) {
                Some((_, of)) if of.contains(&dev) => {}
                Some((_, of)) => of.push(dev),
                None => lines.push((line, vec![dev])),
            }
        }
    }
    let of_all = |of: &[&str]| of.len() == links.len();
    let named = |(line, of): (String, Vec<&str>)| match of_all(&of) {
        true => line,
        false => format!("{}: {line}", shown(&of.join(", "))),
    };
    lines.into_iter().map(named).collect()
}

/// One line for each window, and each quota, that gives somebody his limits now, and whose it is:
/// until when, and for whom.
pub(super) fn of_link(link: &Link) -> Vec<String> {
    const MOST: usize = 8;
    let mut lines = Vec::new();
    let users = link.users.iter().map(|user| (Some(user.user.clone()), &user.limit));
    let groups = link.groups.iter().map(|of| (Some(format!("[{}]", of.group)), &of.limit));
    let mut limits: BTreeMap<(String, [Option<&str>; 2]), Vec<String>> = BTreeMap::new();
    for (name, limit) in [(None, &link.limit)].into_iter().chain(users).chain(groups) {
        let Some(limit) = limit else { continue };
        let Some(what) = limit.what() else { continue };
        let when = [&limit.until, &limit.of].map(Option::as_deref);
        limits.entry((what, when)).or_default().extend(name);
    }
    let group = |of: &str| of.strip_prefix("group ").unwrap_or(of).to_string();
    // A group is named together with those below it.
    let above: Vec<_> = limits.keys().filter(|(_, [_, of])| of.is_some()).cloned().collect();
    for (what, [until, of]) in above {
        let name = format!("[{}]", group(of.unwrap_or_default()));
        limits.entry((what, [until, None])).or_default().retain(|it| *it != name);
    }
    for ((what, [until, of]), names) in limits {
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let more = match names.len().saturating_sub(MOST) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let shown_names = names[..names.len().min(MOST)].join(", ");
        let whom = match of {
            None if names.is_empty() => continue,
            None => format!("{shown_names}{more}"),
            Some(of) if names.is_empty() => of.to_string(),
            Some(Limit::LINK) => format!("{}, and so for {shown_names}{more}", Limit::LINK),
            Some(of) => format!("[{}], and so for {shown_names}{more}", group(of)),
        };
        let whom = shown(&whom);
        lines.push(format!("{what} holds{until}, for {whom}"));
    }
    lines
}
