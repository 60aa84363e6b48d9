//! Which columns of a table fit beside its names, and how the rest is laid out.

use super::cells::{Side, cell, clipped, width};

/// What the column of names has at least, before another column goes.
pub(super) const LEAST_NAME: usize = 12;
/// Spaces before the names, and between two columns.
pub(super) const SPACE: usize = 2;

/// The columns beside the names that there is room for: those of `go_first` are left out, one after
/// the other, until the rest fits. `of`: which column one is, and how wide, with what is between it
/// and the next.
pub(super) fn fitting<T, C: PartialEq>(
    mut columns: Vec<T>,
    of: impl Fn(&T) -> (C, usize),
    go_first: &[C],
    room: usize,
) -> Vec<T> {
    for goes in go_first {
        let taken: usize = columns.iter().map(|it| of(it).1).sum();
        if taken <= room {
            break;
        }
        columns.retain(|it| of(it).0 != *goes);
    }
    columns
}

/// How a table of texts is laid out.
pub(super) struct Layout<const N: usize> {
    pub headings: [&'static str; N],
    pub sides: [Side; N],
    /// Which column has names, which are shortened before anything is wider than the terminal.
    pub names: usize,
    /// What a name has at least, before another column goes.
    pub least: usize,
    /// Which columns go first where the terminal is narrow.
    pub go_first: &'static [&'static str],
    /// Spaces before the first column.
    pub begin: usize,
    /// Spaces between two columns.
    pub between: usize,
}

impl<const N: usize> Layout<N> {
    /// The rows below their headings. `wide`: how many columns a terminal has; `None`: all is
    /// wanted whole.
    pub(super) fn table(&self, mut rows: Vec<[String; N]>, wide: Option<usize>) -> String {
        rows.insert(0, self.headings.map(str::to_string));
        let widest = |at: usize| rows.iter().map(|row| width(&row[at])).max().unwrap_or(0);
        let others = (0..N).filter(|at| *at != self.names);
        let mut columns: Vec<(usize, usize)> = others.map(|at| (at, widest(at))).collect();
        let mut names = widest(self.names);
        if let Some(wide) = wide {
            let least = names.min(self.least);
            let of = |it: &(usize, usize)| (self.headings[it.0], it.1 + self.between);
            let room = wide.saturating_sub(self.begin);
            columns = fitting(columns, of, self.go_first, room.saturating_sub(least));
            let taken: usize = columns.iter().map(|it| of(it).1).sum();
            names = names.min(room.saturating_sub(taken).max(1));
        }
        columns.push((self.names, names));
        columns.sort_unstable();
        let (begin, between) = (" ".repeat(self.begin), " ".repeat(self.between));
        let line = |row: &[String; N]| {
            let cells = columns.iter().map(|(at, wide)| cell(&row[*at], *wide, self.sides[*at]));
            let line = begin.clone() + &cells.collect::<Vec<_>>().join(&between);
            let line = line.trim_end();
            wide.map_or_else(|| line.to_string(), |wide| clipped(line, wide)) + "\n"
        };
        rows.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_go_in_their_order_until_the_rest_fits() {
        let of = |room| {
            let columns = vec![('a', 8), ('b', 4), ('c', 6)];
            let left = fitting(columns, |it| *it, &['c', 'a'], room);
            left.into_iter().map(|(name, _)| name).collect::<String>()
        };
        for (room, left) in [(18, "abc"), (17, "ab"), (12, "ab"), (11, "b"), (0, "b")] {
            assert_eq!(of(room), left, "{room}");
        }
    }
}
