//! What is wrong with a policy, where, and the cure: errors are data here, and all drawing of
//! carets is in one place. Touches nothing.

use std::fmt;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};

use super::source::{Place, Source, Span};
use crate::text;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The policy is refused.
    Error,
    /// The policy is valid, but a part of it does not do what it seems to do.
    Warning,
    /// Nothing is wrong; a reader may want to know.
    Info,
}

/// What sort of thing is wrong: `kind` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No YAML, or YAML that is too big to be a policy.
    Syntax,
    /// A key or a value of the wrong sort.
    Shape,
    /// A part of the format that a later version brings.
    Unsupported,
    /// A name that cannot be used.
    Name,
    /// A rate, a ceil or a percentage.
    Rate,
    /// Promised rates that are more than there is.
    Promise,
    /// Something that two lines claim.
    Claim,
    /// Groups, and who is in them.
    Group,
    /// A window of `times`, or a line that names one.
    Time,
    /// A line of `rules`.
    Rule,
    /// A link that is not there, or cannot be shaped.
    Link,
    /// An account or Unix group.
    Account,
}

impl Kind {
    /// As JSON has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Syntax => "syntax",
            Kind::Shape => "shape",
            Kind::Unsupported => "unsupported",
            Kind::Name => "name",
            Kind::Rate => "rate",
            Kind::Promise => "promise",
            Kind::Claim => "claim",
            Kind::Group => "group",
            Kind::Time => "time",
            Kind::Rule => "rule",
            Kind::Link => "link",
            Kind::Account => "account",
        }
    }
}

/// One thing that is wrong, or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What kind of trouble it is.
    pub kind: Kind,
    /// A sentence, without its place.
    pub message: String,
    /// `None`: the file as a whole.
    pub at: Option<Span>,
    /// The text under the caret.
    pub label: String,
    /// A second place that the message is about, and the text there.
    pub also: Option<Box<(Span, String)>>,
    /// The cure.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic without a label, a cure or a second place.
    pub fn new(
        severity: Severity,
        kind: Kind,
        at: impl Into<Option<Span>>,
        message: String,
    ) -> Self {
        Diagnostic {
            severity,
            kind,
            message,
            at: at.into(),
            label: String::new(),
            also: None,
            help: None,
        }
    }

    /// A reason to refuse the policy.
    pub fn error(kind: Kind, at: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Diagnostic::new(Severity::Error, kind, at, message.into())
    }

    /// A diagnostic about something that the policy asks for and does not get.
    pub fn warning(kind: Kind, at: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Diagnostic::new(Severity::Warning, kind, at, message.into())
    }

    /// A diagnostic about something that is worth knowing.
    pub fn info(kind: Kind, at: impl Into<Option<Span>>, message: impl Into<String>) -> Self {
        Diagnostic::new(Severity::Info, kind, at, message.into())
    }

    /// Sets the text under the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The cure.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a second place, such as the first of two lines with one name.
    pub fn also(mut self, at: Span, label: impl Into<String>) -> Self {
        self.also = Some(Box::new((at, label.into())));
        self
    }

    /// Where the diagnostic begins; `None`: it is about the file as a whole.
    pub fn place(&self) -> Option<Place> {
        self.at.map(|at| at.place)
    }

    fn draw(&self, source: &Source, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Info => Level::INFO,
        };
        let title = level.primary_title(self.message.as_str());
        let mut group = match self.at {
            Some(at) => title.element(shown(source, at, AnnotationKind::Primary, &self.label)),
            None => title.element(Origin::path(source.file())),
        };
        if let Some((at, label)) = self.also.as_deref() {
            group = group.element(shown(source, *at, AnnotationKind::Context, label));
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// The line in which `at` starts, with a caret. Only that line is passed on for drawing, since the
/// whole text, of up to 60,000 lines, would be read again for each error. A line that is too long
/// for a person to have written gets no caret: drawing megabytes takes seconds and shows nothing.
fn shown<'a>(source: &'a Source, at: Span, kind: AnnotationKind, label: &'a str) -> Element<'a> {
    const LONGEST: usize = 4_000;
    let (line_start, line) = source.line_around(at.start as usize);
    let (number, column) = (at.place.line as usize, at.place.column as usize);
    let path = source.file_at(at);
    if line.len() > LONGEST {
        return Origin::path(path).line(number).char_column(column).into();
    }
    let start = (at.start as usize).saturating_sub(line_start).min(line.len());
    let end = (at.end as usize).saturating_sub(line_start).clamp(start, line.len());
    let annotation = kind.span(start..end);
    let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
    Snippet::source(line).path(path).line_start(number).annotation(annotation).into()
}

/// All diagnostics of one file. A report that is an error has at least one [`Severity::Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file, or files.
    pub source: Source,
    /// Errors first, each in file order.
    pub diagnostics: Vec<Diagnostic>,
    /// How many further errors there were beside those in `diagnostics`.
    pub left_out: usize,
}

impl Report {
    /// A report with all of these diagnostics.
    pub fn new(source: &Source, diagnostics: Vec<Diagnostic>) -> Report {
        Report { source: source.clone(), diagnostics, left_out: 0 }
    }

    /// The error to name where there is room for one only (JSON).
    pub fn first(&self) -> Option<&Diagnostic> {
        self.diagnostics.iter().min_by_key(|d| d.severity)
    }

    /// The name of the file that a diagnostic is about.
    pub fn file_of(&self, diagnostic: &Diagnostic) -> &str {
        diagnostic.at.map_or(self.source.file(), |at| self.source.file_at(at))
    }

    /// As text for people, each with its line and a caret; ends with a newline unless empty.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            if i > 0 {
                text.push('\n');
            }
            text.push_str(&diagnostic.draw(&self.source, &renderer));
            text.push('\n');
        }
        if self.left_out > 0 {
            text.push_str(&format!("\nand {} more like these\n", self.left_out));
        }
        text
    }
}

/// Plain, without colour.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end_matches('\n'))
    }
}

impl std::error::Error for Report {}

/// Collects diagnostics while a policy is read or resolved, so that one run shows all of them.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<Diagnostic>,
    notes: Vec<Diagnostic>,
    left_out: usize,
}

impl Findings {
    /// How many errors are kept in one run: more help nobody.
    const MOST: usize = 20;

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let list =
            if diagnostic.severity == Severity::Error { &mut self.errors } else { &mut self.notes };
        if list.len() < Self::MOST {
            list.push(diagnostic);
        } else if diagnostic.severity == Severity::Error {
            self.left_out += 1;
        }
    }

    /// Adds the error of a result, and keeps its value.
    pub(crate) fn take<T>(&mut self, result: Result<T, Diagnostic>) -> Option<T> {
        result.map_err(|diagnostic| self.push(diagnostic)).ok()
    }

    /// Keeps what was found; where nothing was, adds the error, which is made only while there is
    /// room: looking for a similar name costs a walk over all of them.
    pub(crate) fn need<T>(
        &mut self,
        found: Option<T>,
        missing: impl FnOnce() -> Diagnostic,
    ) -> Option<T> {
        if found.is_none() {
            if self.errors.len() < Self::MOST {
                self.push(missing());
            } else {
                self.left_out += 1;
            }
        }
        found
    }

    /// The same findings with the errors only.
    pub(crate) fn without_notes(self) -> Findings {
        Findings { notes: Vec::new(), ..self }
    }

    /// The errors only, each with these words behind it: in which circumstances it is one.
    pub(crate) fn only_errors(self, words: &str) -> Findings {
        let mut found = self.without_notes();
        found.errors.iter_mut().for_each(|error| {
            error.message.push_str(", ");
            error.message.push_str(words);
        });
        found
    }

    /// Adds the findings of another collection, whose errors become warnings if `lenient`.
    pub(crate) fn append(&mut self, other: Findings, lenient: bool) {
        self.left_out += other.left_out;
        for mut diagnostic in other.errors.into_iter().chain(other.notes) {
            if lenient && diagnostic.severity == Severity::Error {
                diagnostic.severity = Severity::Warning;
            }
            self.push(diagnostic);
        }
    }

    /// The first error.
    pub(crate) fn error(&self) -> Option<&Diagnostic> {
        self.errors.first()
    }

    pub(crate) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// The warnings and notes, or a report if there was any error; both in file order.
    pub(crate) fn finish(mut self, source: &Source) -> Result<Vec<Diagnostic>, Report> {
        self.errors.sort_by_key(|d| d.at);
        // What stands at an anchor is read with each of its aliases.
        self.errors.dedup();
        self.notes.sort_by_key(|d| d.at);
        if self.errors.is_empty() {
            return Ok(self.notes);
        }
        Err(Report { source: source.clone(), diagnostics: self.errors, left_out: self.left_out })
    }
}

/// A text from the file, for a message: in backticks, control characters spelled out, not too long.
pub(crate) fn quote(text: &str) -> String {
    format!("`{}`", printable(text, 60))
}

/// At most `longest` characters of a text that somebody else wrote, safe on a terminal.
pub(crate) fn printable(text: &str, longest: usize) -> String {
    let end = text.char_indices().nth(longest).map(|(at, _)| at);
    let ellipsis = if end.is_some() { "…" } else { "" };
    format!("{}{ellipsis}", text::shown(&text[..end.unwrap_or(text.len())]))
}

/// The one of `known` that `text` is probably a misspelling of.
pub(crate) fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong, one at least: `cel` is `ceil`, `bob` is not `www`.
    let most = (text.chars().count() / 3).max(1);
    let small = text.to_lowercase();
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(text.len()) <= most * 4)
        .map(|name| (strsim::osa_distance(&small, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_similar_name_is_proposed_and_a_different_one_is_not() {
        assert_eq!(closest("cel", ["rate", "ceil", "prio"]), Some("ceil"));
        assert_eq!(closest("stuednts", ["staff", "students"]), Some("students"));
        assert_eq!(closest("bob", ["www", "ann"]), None);
        assert_eq!(closest("ANN", ["bob", "ann"]), Some("ann"));
        assert_eq!(closest("eth9", ["eth1", "eth0"]), Some("eth0"), "the same on every run");
    }

    #[test]
    fn a_text_from_the_file_is_safe_on_a_terminal() {
        assert_eq!(quote("a\u{1b}[31mb"), "`a\\u{1b}[31mb`");
        assert_eq!(printable(&"x".repeat(100), 3), "xxx…");
    }

    #[test]
    fn the_first_error_is_the_one_for_json() {
        let at = |line| Span { start: line, end: line, place: Place { line, column: 1 } };
        let source = Source::new("p", "a\nb\n");
        let mut findings = Findings::default();
        findings.push(Diagnostic::warning(Kind::Link, at(1), "w"));
        findings.push(Diagnostic::error(Kind::Rate, at(2), "later"));
        findings.push(Diagnostic::error(Kind::Rule, at(1), "first"));
        let report = findings.finish(&source).unwrap_err();
        let first = report.first().unwrap();
        assert_eq!((first.kind.as_str(), first.message.as_str()), ("rule", "first"));
        assert_eq!(first.place(), Some(Place { line: 1, column: 1 }));
        assert!(report.render(true).contains("\u{1b}["), "colour when asked");
        assert!(!report.render(false).contains('\u{1b}'));
    }
}
