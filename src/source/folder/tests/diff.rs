//! What follows from scans of a folder.

use super::*;

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
