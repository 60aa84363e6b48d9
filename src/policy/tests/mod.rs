//! What the one reader of YAML makes of a text: the tree with every place, or what is said
//! (golden texts in `snapshots/`).

mod bombs;
mod random;
mod yaml;
