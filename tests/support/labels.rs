//! Labels of guests' links, and how soon after their links they come.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cell::SCRATCH;
use super::clock::soon;
use super::command::run;

/// Whose a link is, by the minor of its label, in hexadecimal; 0: nobody's.
pub fn label(link: &str) -> Option<String> {
    let filters = run(&format!("tc filter show dev {link} ingress"));
    let (_, after) = filters.split_once("minor=")?;
    Some(after.split_whitespace().next().expect("a minor").to_string())
}

/// Notes when links come up and when they are labelled.
pub struct Monitor {
    children: [Child; 2],
}

impl Monitor {
    pub fn start() -> Monitor {
        let children = [["ip", "link"], ["tc", "filter"]].map(|[program, object]| {
            let file = File::create(format!("{SCRATCH}/{program}.monitor")).expect("a file");
            let mut command = Command::new(program);
            command.args(["-tshort", "monitor"]).stdin(Stdio::null()).stdout(file);
            // All that tc(8) monitors is traffic control.
            if program == "ip" {
                command.arg(object);
            }
            command.spawn().expect("start a monitor")
        });
        Monitor { children }
    }

    /// Waits until a link has this label, and says how long after the link came up that was.
    #[track_caller]
    pub fn labelled(&self, link: &str, minor: &str) -> Duration {
        soon(&format!("{link} has the label {minor}"), Duration::from_secs(20), || {
            label(link).as_deref() == Some(minor)
        });
        let when = |program: &str, is_it: &dyn Fn(&str) -> bool| {
            let file = format!("{SCRATCH}/{program}.monitor");
            let text = fs::read_to_string(file).expect("what it noted");
            let line = text.lines().find(|line| is_it(line))?;
            // [2026-11-27T16:41:05.221959]
            let time = line.split(['T', ']']).nth(1).expect("a time");
            let mut parts = time.split(':').map(|it| it.parse::<f64>().expect("a number"));
            let mut next = || parts.next().expect("hours, minutes, seconds");
            Some(Duration::from_secs_f64(next() * 3_600.0 + next() * 60.0 + next()))
        };
        let is_up = |line: &str| line.contains(&format!(": {link}@")) && line.contains(",LOWER_UP");
        let is_label = |line: &str| {
            line.contains(&format!("dev {link} ")) && line.contains(&format!("minor={minor} "))
        };
        let up = when("ip", &is_up).expect("the link came up");
        let mut then = when("tc", &is_label);
        soon("the label is noted", Duration::from_secs(5), || {
            then = when("tc", &is_label);
            then.is_some()
        });
        // The label may come before the link is up.
        then.expect("a time").saturating_sub(up)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
