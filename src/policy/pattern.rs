//! Patterns of names, for lines about links or units that come and go: `*` stands for any
//! characters, `?` for one. Touches nothing.

use std::collections::HashSet;

/// A name with a `*` or a `?` in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern; `None`: the text has neither `*` nor `?`, so it is a name.
    pub fn new(text: &str) -> Option<Pattern> {
        text.contains(['*', '?']).then(|| Pattern(text.to_string()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern fits the whole name.
    pub fn fits(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.0.chars(), name.chars());
        // What follows the last `*` in the pattern, and where in the name it was tried last.
        let mut retry = None;
        loop {
            let goes_on = match (pattern.next(), name.clone().next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    retry = Some((pattern.clone(), name.clone()));
                    true
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    name.next().is_some()
                }
                _ => false,
            };
            if !goes_on {
                let Some((after_star, from)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                (pattern, name) = (after_star.clone(), from.clone());
            }
        }
    }

    /// Whether there is a name that fits both.
    pub fn meets(&self, other: &Pattern) -> bool {
        let (a, b): (Vec<char>, Vec<char>) = (self.0.chars().collect(), other.0.chars().collect());
        let mut seen = HashSet::new();
        let mut open = vec![(0, 0)];
        while let Some((i, j)) = open.pop() {
            if !seen.insert((i, j)) {
                continue;
            }
            match (a.get(i), b.get(j)) {
                (None, None) => return true,
                // A `*` ends here, or stands for the next character of the other pattern too.
                (Some('*'), next) => {
                    open.push((i + 1, j));
                    open.extend(next.map(|_| (i, j + 1)));
                }
                (next, Some('*')) => {
                    open.push((i, j + 1));
                    open.extend(next.map(|_| (i + 1, j)));
                }
                (Some(x), Some(y)) if x == y || *x == '?' || *y == '?' => {
                    open.push((i + 1, j + 1));
                }
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().fits(name)
    }

    #[test]
    fn a_star_is_any_characters_and_a_question_mark_is_one() {
        assert!(fits("l2tp*", "l2tp0") && fits("l2tp*", "l2tp") && !fits("l2tp*", "xl2tp0"));
        assert!(fits("l2tp?", "l2tp0") && !fits("l2tp?", "l2tp") && !fits("l2tp?", "l2tp10"));
        assert!(fits("*", "") && fits("*", "eth0") && fits("?", "ö"));
        assert!(fits("user@*.service", "user@1000.service"));
        assert!(fits("*a*b", "xaxxaxb") && !fits("*a*b", "xaxxaxbc"));
        assert!(fits("a*a", "aa") && !fits("a*a", "a"));
        assert!(!fits(&"*a".repeat(50), &"a".repeat(49)), "and this in no time");
        assert_eq!(Pattern::new("eth0"), None);
    }

    #[test]
    fn two_patterns_meet_where_one_name_fits_both() {
        let meets = |a: &str, b: &str| Pattern::new(a).unwrap().meets(&Pattern::new(b).unwrap());
        assert!(meets("l2tp*", "*0") && meets("l2tp?", "l2tp*") && meets("*", "?"));
        assert!(!meets("l2tp*", "ppp*") && !meets("a?", "a??") && !meets("*a", "*b"));
    }
}
