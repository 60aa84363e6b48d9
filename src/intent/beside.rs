//! Warnings of what others have where packets arrive by a link with a `down`.

use crate::facts::Facts;
use crate::model::Model;
use crate::policy::{Diagnostic, Kind};
use crate::tree::Direction;

/// Each of them is named, whether or not something is built yet.
pub(super) fn warnings(model: &Model, facts: &Facts) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    for link in model.links.iter().filter(|link| link.port.direction == Direction::Ingress) {
        let name = &link.port.link;
        let said = facts.said_beside(name).into_iter();
        let warning = |text| Diagnostic::warning(Kind::Link, None, format!("{name}: {text}"));
        warnings.extend(said.map(warning));
    }
    warnings
}
