//! What is not edited, and what stays of an edit.

use super::*;

#[track_caller]
fn begun(path: &Path) -> Draft {
    let draft = Draft::begin(path, || Ok(String::new())).unwrap();
    draft.make(false).unwrap();
    draft
}

#[test]
fn a_file_that_is_not_read_to_its_end_is_not_edited() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("p.yaml");
    fs::write(&path, format!("{}\nlast: line\n", "#".repeat(MAX_BYTES))).unwrap();
    let refused = Draft::begin(&path, || Ok(String::new())).unwrap_err().message();
    assert!(refused.contains("p.yaml has more than the 8388608 bytes"), "{refused}");
    assert!(!above.path().join(".p.yaml.edit").exists());
    let largest = "#".repeat(MAX_BYTES);
    fs::write(&path, &largest).unwrap();
    assert!(begun(&path).is_as_before(&largest));
}

#[test]
fn what_an_editor_keeps_for_itself_goes_with_its_own_edit_alone() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("p.yaml");
    fs::write(&path, "old").unwrap();
    let folder = above.path().canonicalize().unwrap().join(".p.yaml.edit");
    let swap = folder.join(".p.yaml.swp");
    let backup = folder.join("p.yaml~");
    let left = |names: &[&str]| {
        let mut files: Vec<_> =
            folder.read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, names);
    };
    // Saved.
    let draft = begun(&path);
    fs::write(&swap, "typed").unwrap();
    draft.put("new").unwrap();
    assert_eq!(draft.end(false), None);
    assert!(!folder.exists());
    // Ended, with nothing in the copy.
    let draft = begun(&path);
    fs::write(&swap, "typed").unwrap();
    assert_eq!(draft.end(true), Some(Remains::Folder(folder.clone())));
    left(&[".p.yaml.swp"]);
    // The next edit leaves it there, however it ends.
    for kept in [false, true] {
        let draft = begun(&path);
        fs::write(&backup, "new").unwrap();
        assert_eq!(draft.end(kept), Some(Remains::Folder(folder.clone())));
        left(&[".p.yaml.swp", "p.yaml~"]);
    }
    // An older text is nothing that was typed.
    fs::remove_file(&swap).unwrap();
    assert_eq!(begun(&path).end(false), None);
    assert!(!folder.exists());
}
