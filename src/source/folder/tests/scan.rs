//! How the files of a folder are read.

use super::*;

fn names(scan: &Scan) -> Vec<&str> {
    scan.files.keys().map(String::as_str).collect()
}

#[test]
fn manifests_are_found_in_all_folders_but_not_behind_a_dot() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::create_dir_all(path.join("team/deep")).unwrap();
    fs::create_dir_all(path.join(".git")).unwrap();
    fs::create_dir_all(path.join("folder.yaml")).unwrap();
    for name in ["b.yaml", "a.yml", "c.JSON", "team/d.yaml", "team/deep/e.yaml", ".hidden.yaml", ".git/f.yaml", "g.txt"]
    {
        write(path, name, if name.ends_with("JSON") { "{}" } else { "a: b\n" });
    }
    let scan = look(&mut FolderScan::new(path.to_owned(), HOME));
    assert_eq!(names(&scan), ["a.yml", "b.yaml", "c.JSON", "team/d.yaml", "team/deep/e.yaml"]);
    assert!(scan.complete);
}

#[test]
fn a_mounted_config_map_is_read_through_its_links_and_follows_the_switch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (version, group) in [("..v1", "one"), ("..v2", "two")] {
        fs::create_dir(path.join(version)).unwrap();
        write(&path.join(version), "m.yaml", &mapping("m", group));
    }
    symlink("..v1", path.join("..data")).unwrap();
    symlink("..data/m.yaml", path.join("m.yaml")).unwrap();
    let mut looked = FolderScan::new(path.to_owned(), HOME);
    let mut known = Known::default();
    assert_eq!(settle(&mut known, &look(&mut looked)), ["apply m m.yaml", "loaded"]);
    symlink("..v2", path.join("..new")).unwrap();
    fs::rename(path.join("..new"), path.join("..data")).unwrap();
    assert!(!looked.scan().settled, "a change is seen, and not yet believed");
    assert_eq!(settle(&mut known, &look(&mut looked)), ["apply m m.yaml"]);
}

#[test]
fn a_link_to_a_folder_above_is_no_loop_and_a_dangling_link_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "m.yaml", &mapping("m", "g"));
    symlink(".", path.join("loop")).unwrap();
    symlink("nowhere", path.join("dangling.yaml")).unwrap();
    let scan = look(&mut FolderScan::new(path.to_owned(), HOME));
    assert_eq!(names(&scan), ["dangling.yaml", "m.yaml"]);
    assert_eq!(scan.files["dangling.yaml"][0].result.as_ref().unwrap_err()[0].reason, "FileUnreadable");
}

#[test]
fn a_file_that_is_still_being_written_is_ignored_and_its_last_content_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "m.yaml", &mapping("m", "one"));
    let mut looked = FolderScan::new(path.to_owned(), HOME);
    let before = look(&mut looked);
    for cut in [60, 120, 180] {
        write(path, "m.yaml", &mapping("m", "two")[..cut]);
        let scan = looked.scan();
        assert!(!scan.settled);
        assert_eq!(scan.files, before.files);
    }
    write(path, "m.yaml", &mapping("m", "two"));
    assert!(!looked.scan().settled);
    let after = looked.scan();
    assert!(after.settled);
    assert_ne!(after.files, before.files);
}

#[test]
fn an_unchanged_file_is_not_parsed_again() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "m.yaml", &mapping("m", "g"));
    let mut looked = FolderScan::new(folder.path().to_owned(), HOME);
    let first = look(&mut looked);
    write(folder.path(), "m.yaml", &mapping("m", "g"));
    let second = look(&mut looked);
    assert!(Arc::ptr_eq(&first.files["m.yaml"], &second.files["m.yaml"]), "same text under a new time");
}

#[test]
fn unreadable_files_are_reported_and_never_treated_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "big.yaml", &"# \n".repeat(400_000));
    fs::write(path.join("latin.yaml"), b"a: \xe9\n").unwrap();
    let scan = look(&mut FolderScan::new(path.to_owned(), HOME));
    let reason = |file: &str| scan.files[file][0].result.as_ref().unwrap_err()[0].reason;
    assert_eq!(reason("big.yaml"), "FileTooLarge");
    assert_eq!(reason("latin.yaml"), "NotUtf8");

    let mut deep = path.to_owned();
    for _ in 0..20 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    let scan = look(&mut FolderScan::new(path.to_owned(), HOME));
    assert!(!scan.complete);

    let missing = FolderScan::new(path.join("nowhere"), HOME).scan();
    assert!(missing.missing.is_some());
}

#[test]
fn linting_paths_takes_files_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "m.yaml", &mapping("m", "g"));
    write(path, "p.yaml", &provider());
    let report = lint_paths(&[path.to_owned()]);
    assert_eq!((report.objects, report.has_errors()), (2, false));
    let reasons: Vec<_> = report.findings.iter().map(|finding| finding.problem.reason).collect();
    assert_eq!(reasons, ["TargetNotFound"]);
    let report = lint_paths(&[path.join("p.yaml"), path.join("nowhere.yaml")]);
    assert!(report.has_errors());
    assert!(report.findings[0].to_string().contains("nowhere.yaml: "), "{:?}", report.findings);
}
