//! Writes what packages have beside the program: man pages and completions. An example, so that
//! none of it is in the program: `cargo run --example documents -- FOLDER` (a `/usr/share`).

use std::io;
use std::path::Path;

#[path = "documents/pages.rs"]
mod pages;

fn main() -> io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "target/documents".to_string());
    pages::write(Path::new(&folder))
}
