//! The text of a policy, of one file or of several, and places in it. Touches nothing.

use std::sync::Arc;

/// A position in one of the policy's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 1.
    pub line: u32,
    /// In characters, counted from 1.
    pub column: u32,
}

/// A piece of the policy's text: its bytes for the caret, and where it starts for people. Pieces of
/// several files are in the order of these files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its first byte, counted from 0 in the whole text, of all files.
    pub start: u32,
    /// The byte after its last.
    pub end: u32,
    /// Where it begins in its own file.
    pub place: Place,
}

impl Span {
    /// The beginning of the first file, which is the place of anything that is missing.
    pub const START: Span = Span { start: 0, end: 0, place: Place { line: 1, column: 1 } };

    /// The same piece, `bytes` further on in the whole text.
    pub(super) fn moved(self, bytes: u32) -> Span {
        Span { start: self.start + bytes, end: self.end + bytes, ..self }
    }
}

/// A value as the file has it, with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written<T> {
    /// What is meant.
    pub value: T,
    /// Where it is written.
    pub at: Span,
}

/// The files that a policy was read from: errors found later still show their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The files' texts one after the other, with a line's end between two, so that the end of one
    /// is not the beginning of the next.
    pub text: Arc<str>,
    /// The files, in the order of their texts; one at least.
    files: Arc<[File]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// As messages name it; `-` is standard input.
    name: String,
    /// Where its text begins.
    start: usize,
}

impl Source {
    /// A source of one file; `file` is the name that messages have for it.
    pub fn new(file: &str, text: &str) -> Source {
        let file = File { name: file.to_string(), start: 0 };
        Source { text: text.into(), files: [file].into() }
    }

    /// The same, and these files' names and texts behind it.
    pub fn with<'a>(self, others: impl IntoIterator<Item = (String, &'a str)>) -> Source {
        let mut files = self.files.to_vec();
        let mut text = self.text.to_string();
        for (name, of_other) in others {
            text.push('\n');
            files.push(File { name, start: text.len() });
            text.push_str(of_other);
        }
        Source { text: text.into(), files: files.into() }
    }

    /// The first file, as the command line names it; `-` is standard input.
    pub fn file(&self) -> &str {
        self.files.first().map_or("", |file| &file.name)
    }

    /// The file in which a piece of the text is.
    pub fn file_at(&self, at: Span) -> &str {
        let (index, _) = self.around(at.start as usize);
        self.files.get(index).map_or("", |file| &file.name)
    }

    /// Each file's name and text.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.texts().map(|(text, _)| text);
        self.files.iter().map(|file| file.name.as_str()).zip(texts)
    }

    /// Each file's text, and at which byte of the whole text it begins.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, u32)> {
        self.files.iter().map(|file| {
            let (_, text) = self.around(file.start);
            (text, u32::try_from(file.start).unwrap_or(u32::MAX))
        })
    }

    /// The number of the file that a byte is in, and that file's text.
    fn around(&self, offset: usize) -> (usize, &str) {
        let next = self.files.partition_point(|file| file.start <= offset).max(1);
        let start = self.files.get(next - 1).map_or(0, |file| file.start);
        let end = self.files.get(next).map_or(self.text.len(), |file| file.start - 1);
        (next - 1, &self.text[start..end])
    }

    /// The line that a byte is in, without its end, and where that line starts.
    pub(super) fn line_around(&self, offset: usize) -> (usize, &str) {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let start = self.text[..offset].rfind('\n').map_or(0, |at| at + 1);
        let end = self.text[offset..].find('\n').map_or(self.text.len(), |at| offset + at);
        (start, self.text[start..end].trim_end_matches('\r'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_in_its_own_file() {
        let others = [("b".to_string(), ""), ("c".to_string(), "x\ny"), ("d".to_string(), "z")];
        let source = Source::new("a", "1").with(others);
        assert_eq!(&*source.text, "1\n\nx\ny\nz");
        let texts: Vec<_> = source.texts().collect();
        assert_eq!(texts, [("1", 0), ("", 2), ("x\ny", 3), ("z", 7)]);
        let at = |byte| source.file_at(Span::START.moved(byte));
        assert_eq!([0, 1, 2, 3, 6, 7, 8].map(at), ["a", "a", "b", "c", "c", "d", "d"]);
        assert_eq!(source.line_around(5), (5, "y"));
        assert_eq!(Source::new("-", "").file_at(Span::START), "-");
    }
}
