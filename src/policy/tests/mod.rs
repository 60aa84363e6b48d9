//! The YAML reader's tree of a text with all places, or its error (golden texts in `snapshots/`).

mod bombs;
mod files;
mod mistakes;
mod random;
mod yaml;
