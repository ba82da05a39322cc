use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::api::manifest::parse_file;
use crate::model::Kind;
use crate::source::ResourceEvent;

/// The namespace of the operator.
const HOME: &str = "rolecall-system";

fn mapping(name: &str, group: &str) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         subjects: [{{identityProvider: okta, groups: [{{displayName: {group}}}]}}]\n  grants: [{{target: {{name: dev}}, \
         resources: [\"services/*\"], roles: [roles/run.invoker]}}]\n"
    )
}

fn provider() -> String {
    "apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {name: okta}\nspec:\n  scim: {tokens: [{name: a, \
     secretRef: {name: okta}}]}\n  principals: {allowedDomains: [example.com], users: {googleAccount: {attribute: \
     userName}}}\n"
        .to_owned()
}

fn reference(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::RoleMapping, Some("shop"), name)
}

fn scan(files: &[(&str, &str)]) -> Scan {
    let parsed = |(file, text): &(&str, &str)| ((*file).to_owned(), Arc::new(parse_file(file, text)));
    Scan { missing: None, complete: true, settled: true, files: files.iter().map(parsed).collect() }
}

/// Scans until nothing changes any more, as the loop does.
fn settle(known: &mut Known, scan: &Scan) -> Vec<String> {
    let mut said = Vec::new();
    for _ in 0..4 {
        said.extend(step(known, scan).iter().map(word));
    }
    assert_eq!(step(known, scan), [], "it settles");
    said
}

fn word(change: &FolderChange) -> String {
    let names = |objects: &BTreeSet<ObjectRef>| objects.iter().map(|o| o.name.clone()).collect::<Vec<_>>().join(" ");
    match change {
        FolderChange::Apply { object, file, .. } => format!("apply {} {file}", object.object_ref().name),
        FolderChange::Unreadable { file, problems, keeps } => {
            let reasons: Vec<_> = problems.iter().map(|problem| problem.reason).collect();
            format!("unreadable {file} {} keeps [{}]", reasons.join(" "), names(keeps))
        }
        FolderChange::Readable { file } => format!("readable {file}"),
        FolderChange::Deleted { object, file } => format!("delete {} {file}", object.name),
        FolderChange::Suspicious { why, missing } => format!("suspicious {why:?} [{}]", names(missing)),
        FolderChange::Healthy => "healthy".to_owned(),
        FolderChange::Loaded => "loaded".to_owned(),
    }
}

/// State after loading a folder with these files.
fn loaded(files: &[(&str, &str)]) -> Known {
    let mut known = Known::default();
    settle(&mut known, &scan(files));
    known
}

#[test]
fn the_first_load_applies_in_the_order_of_reference_and_ends_with_loaded() {
    let mut known = Known::default();
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: okta}\nstringData: {token: x}\n";
    let scan = scan(&[("a.yaml", &mapping("m", "g")), ("b.yaml", &provider()), ("c.yaml", secret)]);
    assert_eq!(settle(&mut known, &scan), ["apply okta c.yaml", "apply okta b.yaml", "apply m a.yaml", "loaded"]);
}

#[test]
fn a_change_of_a_file_is_applied_at_once_and_a_change_of_spelling_is_not() {
    let (p, m) = (provider(), mapping("m", "g"));
    let mut known = loaded(&[("p.yaml", &p), ("m.yaml", &m)]);
    let spelled = m.replace("[\"services/*\"]", "['services/*']");
    assert_eq!(settle(&mut known, &scan(&[("p.yaml", &p), ("m.yaml", &spelled)])), [] as [&str; 0]);
    let changed = scan(&[("p.yaml", &p), ("m.yaml", &mapping("m", "other"))]);
    assert_eq!(diff(&known, &changed).iter().map(word).collect::<Vec<_>>(), ["apply m m.yaml"]);
}

#[test]
fn a_removed_file_or_document_is_a_deletion_once_two_looks_agree() {
    let (p, m, n) = (provider(), mapping("m", "g"), mapping("n", "g"));
    let both = format!("{m}---\n{n}");
    let mut known = loaded(&[("p.yaml", &p), ("both.yaml", &both)]);
    let one = scan(&[("p.yaml", &p), ("both.yaml", &m)]);
    assert_eq!(step(&mut known, &one), [], "the first look is not believed");
    assert_eq!(step(&mut known, &one).iter().map(word).collect::<Vec<_>>(), ["delete n both.yaml"]);
    assert_eq!(step(&mut known, &one), []);
    // The last mapping of a folder can be deleted, too, while the folder has other manifests.
    assert_eq!(settle(&mut known, &scan(&[("p.yaml", &p)])), ["delete m both.yaml"]);
}

#[test]
fn a_mapping_that_is_back_before_the_second_scan_was_never_missing() {
    let (p, m) = (provider(), mapping("m", "g"));
    let mut known = loaded(&[("p.yaml", &p), ("m.yaml", &m)]);
    for _ in 0..5 {
        assert_eq!(step(&mut known, &scan(&[("p.yaml", &p)])), []);
        assert_eq!(step(&mut known, &scan(&[("p.yaml", &p), ("m.yaml", &m)])), []);
    }
}

#[test]
fn a_folder_that_is_being_emptied_slowly_is_evaluated_when_it_is_quiet() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let texts: Vec<_> = names.iter().map(|name| (format!("{name}.yaml"), mapping(name, "g"))).collect();
    let files: Vec<_> = texts.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let mut known = loaded(&files);
    for left in (1..6).rev() {
        assert_eq!(step(&mut known, &scan(&files[..left])), [], "{left} left");
    }
    assert_eq!(settle(&mut known, &scan(&files[..1])), ["suspicious MostMappingsGone [b c d e f]"]);
}

#[test]
fn exactly_half_may_go_and_more_than_half_may_not() {
    let names = ["a", "b", "c", "d"];
    let texts: Vec<_> = names.iter().map(|name| (format!("{name}.yaml"), mapping(name, "g"))).collect();
    let files: Vec<_> = texts.iter().map(|(file, text)| (file.as_str(), text.as_str())).collect();
    let mut known = loaded(&files);
    assert_eq!(settle(&mut known, &scan(&files[..2])), ["delete c c.yaml", "delete d d.yaml"]);
    let mut known = loaded(&files);
    assert_eq!(settle(&mut known, &scan(&files[..1])), ["suspicious MostMappingsGone [b c d]"]);
    assert!(known.is_suspicious());
    assert_eq!(settle(&mut known, &scan(&files[..3])), ["suspicious StillMissing [d]"], "until all are back");
    assert_eq!(settle(&mut known, &scan(&files)), ["healthy"]);
    assert!(!known.is_suspicious());
}

#[test]
fn a_missing_or_empty_folder_removes_nothing_and_all_is_well_when_it_is_back() {
    let (p, m) = (provider(), mapping("m", "g"));
    let files = [("p.yaml", p.as_str()), ("m.yaml", m.as_str())];
    let mut known = loaded(&files);
    let gone = Scan { missing: Some("no such folder".to_owned()), ..Scan::default() };
    assert_eq!(settle(&mut known, &gone), ["unreadable . FolderMissing keeps []", "suspicious FolderMissing [okta m]"]);
    assert_eq!(settle(&mut known, &scan(&[])), ["readable .", "suspicious FolderEmpty [okta m]"]);
    assert_eq!(settle(&mut known, &scan(&[("other.yaml", "a: b\n")])), [] as [&str; 0], "still no manifest of ours");
    assert_eq!(settle(&mut known, &scan(&files)), ["healthy"]);
    assert_eq!(known.objects().len(), 2);
}

#[test]
fn a_missing_folder_that_is_back_at_the_next_scan_raises_no_alarm() {
    let (p, m) = (provider(), mapping("m", "g"));
    let files = scan(&[("p.yaml", &p), ("m.yaml", &m)]);
    let mut known = loaded(&[("p.yaml", &p), ("m.yaml", &m)]);
    let gone = Scan { missing: Some("no such folder".to_owned()), ..Scan::default() };
    let said: Vec<_> =
        [&gone, &files, &files].iter().flat_map(|scan| step(&mut known, scan)).map(|c| word(&c)).collect();
    assert_eq!(said, ["unreadable . FolderMissing keeps []", "readable ."]);
}

#[test]
fn a_confirmed_removal_ends_the_alarm() {
    let texts = [mapping("a", "g"), mapping("b", "g")];
    let mut known = loaded(&[("a.yaml", &texts[0]), ("b.yaml", &texts[1])]);
    assert_eq!(settle(&mut known, &scan(&[])), ["suspicious FolderEmpty [a b]"]);
    known.forget(&[reference("a"), reference("b")].into());
    assert_eq!(settle(&mut known, &scan(&[])), ["healthy"]);
}

#[test]
fn a_restart_in_a_suspicious_state_removes_nothing() {
    let stored = |names: &[&str]| -> BTreeMap<ObjectRef, KnownObject> {
        let known = |name: &&str| (reference(name), KnownObject { file: format!("{name}.yaml"), hash: None });
        names.iter().map(known).collect()
    };
    let a = mapping("a", "g");
    let files = scan(&[("a.yaml", &a)]);

    let mut known = Known::new(stored(&["a", "b", "c"]), false);
    assert_eq!(settle(&mut known, &files), ["apply a a.yaml", "suspicious MostMappingsGone [b c]", "loaded"]);
    let mut known = Known::new(stored(&["a", "b", "c"]), false);
    assert_eq!(settle(&mut known, &scan(&[])), ["suspicious FolderEmpty [a b c]", "loaded"]);
    // A single missing mapping would be a deletion, but the folder was frozen before the restart.
    let mut known = Known::new(stored(&["a", "b"]), true);
    assert_eq!(settle(&mut known, &files), ["apply a a.yaml", "suspicious StillMissing [b]", "loaded"]);
    // A mapping that was removed from a healthy folder while rolecall was not running.
    let mut known = Known::new(stored(&["a", "b"]), false);
    assert_eq!(settle(&mut known, &files), ["apply a a.yaml", "delete b b.yaml", "loaded"]);
}

#[test]
fn a_file_that_stops_parsing_keeps_its_last_content_in_force_also_over_a_restart() {
    let (p, m, n) = (provider(), mapping("m", "g"), mapping("n", "g"));
    let both = format!("{m}---\n{n}");
    let files = [("p.yaml", p.as_str()), ("both.yaml", both.as_str())];
    let mut known = loaded(&files);
    let cut = scan(&[("p.yaml", &p), ("both.yaml", "kind: [")]);
    assert_eq!(settle(&mut known, &cut), ["unreadable both.yaml InvalidYaml keeps [m n]"]);
    assert_eq!(settle(&mut known, &scan(&files)), ["readable both.yaml"]);

    let stored = known.objects().clone();
    let mut known = Known::new(stored, false);
    assert_eq!(settle(&mut known, &cut), ["unreadable both.yaml InvalidYaml keeps [m n]", "loaded"]);
    assert_eq!(known.objects().len(), 3);
}

#[test]
fn a_good_document_is_applied_beside_a_bad_one_which_keeps_its_object() {
    let (m, n) = (mapping("m", "g"), mapping("n", "g"));
    let mut known = loaded(&[("both.yaml", &format!("{m}---\n{n}"))]);
    let half = format!("{}---\n{}", mapping("m", "other"), n.replace("roles/run.invoker", "roles/owner"));
    let said = settle(&mut known, &scan(&[("both.yaml", &half)]));
    assert_eq!(said, ["apply m both.yaml", "unreadable both.yaml RuleViolated keeps [n]"]);
    // The unreadable document is removed: now it is a deletion.
    assert_eq!(
        settle(&mut known, &scan(&[("both.yaml", &mapping("m", "other"))])),
        ["readable both.yaml", "delete n both.yaml"]
    );
}

#[test]
fn a_renamed_file_is_no_deletion_not_even_when_it_is_broken_on_the_way() {
    let (p, m) = (provider(), mapping("m", "g"));
    let mut known = loaded(&[("p.yaml", &p), ("old.yaml", &m)]);
    assert_eq!(settle(&mut known, &scan(&[("p.yaml", &p), ("new.yaml", &m)])), ["apply m new.yaml"]);
    // Moved again, and damaged so that its name can still be read.
    let bad = m.replace("roles/run.invoker", "roles/owner");
    let said = settle(&mut known, &scan(&[("p.yaml", &p), ("third.yaml", &bad)]));
    assert_eq!(said, ["unreadable third.yaml RuleViolated keeps [m]"]);
    // And again, so that nothing can be read.
    let said = settle(&mut known, &scan(&[("p.yaml", &p), ("fourth.yaml", "kind: [")]));
    assert_eq!(said, ["unreadable fourth.yaml InvalidYaml keeps [m]", "readable third.yaml"]);
    assert_eq!(settle(&mut known, &scan(&[("p.yaml", &p), ("fourth.yaml", &m)])), ["readable fourth.yaml"]);
    assert!(known.objects().contains_key(&reference("m")));
}

#[test]
fn a_file_that_was_broken_before_does_not_hold_back_a_deletion() {
    let (p, m, n) = (provider(), mapping("m", "g"), mapping("n", "g"));
    let broken = ("broken.yaml", "kind: [");
    let mut known = loaded(&[broken, ("p.yaml", &p), ("m.yaml", &m), ("n.yaml", &n)]);
    assert_eq!(settle(&mut known, &scan(&[broken, ("p.yaml", &p), ("m.yaml", &m)])), ["delete n n.yaml"]);
}

#[test]
fn of_two_files_with_one_object_the_first_counts_and_the_second_takes_over_when_it_goes() {
    let (first, second) = (mapping("m", "first"), mapping("m", "second"));
    let mut known = Known::default();
    let both = scan(&[("a.yaml", &first), ("b.yaml", &second)]);
    assert_eq!(settle(&mut known, &both), ["apply m a.yaml", "unreadable b.yaml DuplicateObject keeps []", "loaded"]);
    assert_eq!(settle(&mut known, &scan(&[("b.yaml", &second)])), ["apply m b.yaml", "readable b.yaml"]);
}

#[test]
fn nothing_is_concluded_from_a_scan_that_was_not_complete_or_not_settled() {
    let (p, m) = (provider(), mapping("m", "g"));
    for (complete, settled) in [(false, true), (true, false), (false, false)] {
        let mut known = loaded(&[("p.yaml", &p), ("m.yaml", &m)]);
        let partial = Scan { complete, settled, ..scan(&[("p.yaml", &p)]) };
        assert_eq!(settle(&mut known, &partial), [] as [&str; 0]);
        assert_eq!(settle(&mut known, &scan(&[("p.yaml", &p)])), ["delete m m.yaml"]);
    }
}

#[derive(Debug, Clone)]
enum Text {
    Good(Vec<(usize, usize)>),
    BadSpec(usize),
    Broken,
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        4 => prop::collection::vec((0..6usize, 0..2usize), 0..4).prop_map(Text::Good),
        1 => (0..6usize).prop_map(Text::BadSpec),
        1 => Just(Text::Broken),
    ]
}

fn a_scan() -> impl Strategy<Value = Scan> {
    let files =
        prop::collection::btree_map(prop::sample::select(vec!["a.yaml", "b.yaml", "c.yaml", "d.yaml"]), text(), 0..5);
    (files, 0..12u8, any::<bool>()).prop_map(|(files, state, settled)| {
        if state == 0 {
            return Scan { missing: Some("gone".to_owned()), ..Scan::default() };
        }
        let written: Vec<_> = files
            .into_iter()
            .map(|(file, text)| {
                let text = match text {
                    Text::Good(documents) => documents
                        .into_iter()
                        .map(|(name, group)| mapping(&format!("m{name}"), &format!("g{group}")))
                        .collect::<Vec<_>>()
                        .join("---\n"),
                    Text::BadSpec(name) => {
                        mapping(&format!("m{name}"), "g").replace("roles/run.invoker", "roles/owner")
                    }
                    Text::Broken => "kind: [".to_owned(),
                };
                (file, text)
            })
            .collect();
        let files: Vec<_> = written.iter().map(|(file, text)| (*file, text.as_str())).collect();
        Scan { complete: state > 1, settled: settled || state > 5, ..scan(&files) }
    })
}

proptest! {
    #![proptest_config(crate::model::cases::cases(300))]

    #[test]
    fn nothing_is_deleted_that_may_still_be_meant(scans in prop::collection::vec((a_scan(), 1..4usize), 1..8)) {
        let mut known = Known::default();
        let mut in_force: BTreeMap<ObjectRef, KnownObject> = BTreeMap::new();
        for (scan, times) in scans {
            for _ in 0..times {
                let before = known.clone();
                let changes = step(&mut known, &scan);
                prop_assert_eq!(&diff(&before, &scan), &changes);
                let deleted: Vec<_> = changes
                    .iter()
                    .filter_map(|change| match change {
                        FolderChange::Deleted { object, file } => Some((object, file)),
                        _ => None,
                    })
                    .collect();
                for (object, file) in &deleted {
                    prop_assert!(scan.missing.is_none() && scan.complete && scan.settled);
                    prop_assert!(!before.is_suspicious());
                    for (name, documents) in &scan.files {
                        let says = documents.iter().any(|document| document.identity.as_ref() == Some(*object));
                        let broken = documents.iter().any(|document| document.result.is_err());
                        prop_assert!(!says, "{object} is in {name}");
                        prop_assert!(!(broken && name == *file), "{file} cannot be read");
                    }
                }
                prop_assert!(deleted.len() < 2 || deleted.len() * 2 <= before.objects().len());
                for change in changes {
                    match change {
                        FolderChange::Apply { object, file, hash } => {
                            in_force.insert(object.object_ref(), KnownObject { file, hash: Some(hash) });
                        }
                        FolderChange::Deleted { object, .. } => {
                            in_force.remove(&object);
                        }
                        _ => {}
                    }
                }
                // Applying the changes in order gives the state in force.
                let said = |objects: &BTreeMap<ObjectRef, KnownObject>| -> Vec<_> {
                    objects.iter().map(|(object, at)| (object.clone(), at.hash)).collect()
                };
                prop_assert_eq!(said(&in_force), said(known.objects()));
            }
        }
        // A quiet folder is processed, and then there are no more changes.
        let quiet = scan(&[("a.yaml", &mapping("m0", "g")), ("b.yaml", &mapping("m1", "g"))]);
        for _ in 0..4 {
            step(&mut known, &quiet);
        }
        prop_assert_eq!(step(&mut known, &quiet), []);
        prop_assert_eq!(diff(&known, &quiet), []);
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// Scans until the files are settled.
fn look(folder: &mut FolderScan) -> Scan {
    for _ in 0..5 {
        let scan = folder.scan();
        if scan.settled || scan.missing.is_some() {
            return scan;
        }
    }
    panic!("the folder does not settle");
}

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

fn event_word(event: &ResourceEvent) -> String {
    match event {
        ResourceEvent::Applied { observed, .. } => format!("apply {} {}", observed.object.name, observed.origin),
        ResourceEvent::DeletionRequested { observed, .. } => {
            format!("delete {} {}", observed.object.name, observed.origin)
        }
        ResourceEvent::Absent { object, .. } => format!("absent {}", object.name),
        ResourceEvent::Recovered(object) => format!("recovered {}", object.name),
        ResourceEvent::ProblemCleared(object) => format!("cleared {}", object.name),
        ResourceEvent::Suspicious(Some(why)) => format!("suspicious {why:?}"),
        ResourceEvent::Suspicious(None) => "trusted".to_owned(),
        ResourceEvent::Loaded => "loaded".to_owned(),
        other => panic!("{other:?}"),
    }
}

fn options(folder: &Path) -> PollOptions {
    let (every, settle) = (Duration::from_millis(20), Duration::from_millis(5));
    PollOptions { every, settle, ..PollOptions::new(folder.to_owned(), HOME.to_owned()) }
}

#[test]
fn secrets_have_the_namespace_of_the_operator_or_are_not_read() {
    let secret = |namespace: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: okta{namespace}}}\nstringData: {{token: t}}\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut looked = FolderScan::new(path.to_owned(), HOME);
    let mut known = Known::default();
    write(path, "a.yaml", &secret(""));
    write(path, "foreign.yaml", &secret(", namespace: shop"));
    assert_eq!(settle(&mut known, &look(&mut looked)), ["apply okta a.yaml", "loaded"]);
    let own = ObjectRef::new(Kind::Secret, Some(HOME), "okta");
    assert_eq!(known.objects().keys().collect::<Vec<_>>(), [&own]);
    // The same Secret with an explicit namespace, and the removal of one of the same name elsewhere: no changes.
    write(path, "a.yaml", &secret(", namespace: rolecall-system"));
    fs::remove_file(path.join("foreign.yaml")).unwrap();
    assert_eq!(settle(&mut known, &look(&mut looked)), [""; 0]);
    // It moves to another namespace: removed here.
    write(path, "a.yaml", &secret(", namespace: shop"));
    write(path, "m.yaml", &mapping("m", "g"));
    assert_eq!(settle(&mut known, &look(&mut looked)), ["apply m m.yaml", "delete okta a.yaml"]);
}

#[tokio::test]
async fn the_loop_ends_when_it_is_cancelled_although_nobody_receives_its_events() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "p.yaml", &provider());
    let (sender, changes) = mpsc::channel(1);
    sender.try_send(Vec::new()).unwrap();
    let (_commander, commands) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(poll(options(folder.path()), Known::default(), sender, commands, cancel.clone()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!task.is_finished(), "it waits for its place in the channel");
    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("it ends").unwrap();
    drop(changes);
}

#[tokio::test]
async fn the_loop_sends_what_happens_in_the_folder_until_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write(path, "p.yaml", &provider());
    write(path, "m.yaml", &mapping("m", "g"));
    let options = options(path);
    let (sender, mut changes) = mpsc::channel(4);
    let (commander, commands) = mpsc::channel(4);
    let cancel = CancellationToken::new();
    let task = tokio::spawn(poll(options, Known::default(), sender, commands, cancel.clone()));
    let mut wait_for = async |what: &str| {
        let mut said = Vec::new();
        while !said.iter().any(|word: &String| word == what) {
            let batch = tokio::time::timeout(Duration::from_secs(20), changes.recv()).await;
            let batch = batch.unwrap_or_else(|_| panic!("no `{what}`, only {said:?}")).unwrap();
            said.extend(batch.iter().map(event_word));
        }
        said
    };
    assert_eq!(wait_for("loaded").await, ["apply okta p.yaml", "apply m m.yaml", "loaded"]);
    write(path, "n.yaml", &mapping("n", "g"));
    assert_eq!(wait_for("apply n n.yaml").await.len(), 1);
    fs::remove_file(path.join("n.yaml")).unwrap();
    assert_eq!(wait_for("delete n n.yaml").await.len(), 1);
    fs::remove_file(path.join("m.yaml")).unwrap();
    fs::remove_file(path.join("p.yaml")).unwrap();
    wait_for("absent m").await;
    let provider = ObjectRef::new(Kind::IdentityProvider, None, "okta");
    commander.send(FolderCommand::Forget([provider, reference("m")].into())).await.unwrap();
    wait_for("trusted").await;
    cancel.cancel();
    task.await.unwrap();
}
