//! Lists of resources, and targets that overlap.

use super::*;

#[test]
fn a_failed_or_partial_list_concludes_nothing_and_a_new_service_is_found() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    let effects = index.apply_inventory(&target("t"), inventory(&["a", "b", "c"]));
    assert_eq!(effects.dirty, BTreeMap::from([(document("c"), Urgency::Addition)]));
    assert!(index.apply_inventory(&target("t"), inventory(&["a", "b", "c"])).dirty.is_empty());

    index.inventory_failed(&target("t"));
    assert_eq!(index.people("c"), BTreeSet::from([1, 2]), "the last list stays");
    assert_eq!(index.enforcement_of("m", &document("x")), Enforcement::Frozen(FreezeReason::InventoryIncomplete));
    assert!(!index.target(&target("t")).unwrap().complete);

    let part = Inventory { unlisted: BTreeSet::from([("l".to_owned(), ResourceKind::Service)]), ..inventory(&["a"]) };
    index.apply_inventory(&target("t"), part);
    assert_eq!(index.people("b"), BTreeSet::from([1, 2]), "what could not be listed stays as it was");
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
    assert_eq!(index.enforcement_of("m", &document("x")), Enforcement::Frozen(FreezeReason::InventoryIncomplete));
    assert_eq!(index.mapping(&key("m")).unwrap().unlisted_targets, BTreeSet::from([target("t")]));
}

#[test]
fn on_a_service_that_a_complete_list_lacks_grants_stay_wanted_and_nothing_new_is_granted() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    let effects = index.apply_inventory(&target("t"), inventory(&["a"]));
    assert_eq!(effects.dirty, BTreeMap::from([(document("b"), Urgency::Revocation)]));
    let claimants = BTreeSet::from([key("m")]);
    let desired = index.desired(&document("b"), &claimants);
    assert_eq!((desired.grants.len(), desired.enforcements[&key("m")].clone()), (2, NOTHING));
    assert!(desired.absent && !index.desired(&document("a"), &claimants).absent);
    assert!(desired.grants.values().flat_map(|grant| grant.claims.values()).all(|terms| !terms.write));
    index.change(&left(1, &[1]));
    assert_eq!(index.desired(&document("b"), &claimants).grants.len(), 1, "a leaver still goes");
    index.inventory_failed(&target("t"));
    assert!(!index.desired(&document("b"), &claimants).absent, "a list that failed says nothing");
    assert!(!index.desired(&document_in("elsewhere", "b"), &claimants).absent, "nobody lists that region");
    index.apply_inventory(&target("t"), inventory(&["a", "b"]));
    let desired = index.desired(&document("b"), &claimants);
    assert!(
        !desired.absent && desired.grants.values().flat_map(|grant| grant.claims.values()).all(|terms| terms.write)
    );
}

#[test]
fn a_list_that_lacks_one_kind_in_one_region_concerns_nothing_else() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/*"], &[INVOKER]));
    index.map("pools", spec(&["red"], &["workerPools/*"], &[INVOKER]));
    let unlisted = BTreeSet::from([("l".to_owned(), ResourceKind::WorkerPool)]);
    let effects = index.apply_inventory(&target("t"), Inventory { unlisted, ..inventory(&["a"]) });
    assert_eq!(effects.dirty, BTreeMap::from([(document("b"), Urgency::Revocation)]));
    assert!(!index.target(&target("t")).unwrap().complete);
    let view = index.mapping(&key("m")).unwrap();
    assert!(view.unlisted_targets.is_empty());
    assert!(index.desired(&document("b"), &BTreeSet::from([key("m")])).absent);
    let view = index.mapping(&key("pools")).unwrap();
    assert_eq!(view.unlisted_targets, BTreeSet::from([target("t")]));
    assert!(view.unmatched.is_empty(), "nothing is said about what was not listed");
    let pool: DocumentKey = "run:projects/p/locations/l/workerPools/w".parse().unwrap();
    assert!(!index.desired(&pool, &BTreeSet::new()).absent);
    assert_eq!(index.enforcement_of("pools", &pool), Enforcement::Frozen(FreezeReason::InventoryIncomplete));
}

#[test]
fn nothing_is_wanted_through_a_pin_that_is_not_stored_yet_and_nothing_goes() {
    let mut index = index();
    let red = spec(&["red"], &["services/a"], &[INVOKER]);
    let effects = index.apply_mapping(key("m"), 1, red.clone(), BTreeSet::new());
    assert!(index.people("a").is_empty());
    assert_eq!(index.enforcement_of("m", &document("a")), everything(FreezeReason::NotLoaded));
    let other = Pin { group: group(2), ..effects.pins[0].clone() };
    assert_eq!(index.pins_stored(&[other]), Effects::default(), "another pin is not this one");
    index.apply_directory(&okta(), &joined(1, &[3]));
    index.apply_mapping(key("m"), 2, spec(&["red"], &["services/*"], &[INVOKER]), BTreeSet::new());
    assert!(index.people("a").is_empty(), "neither a change of the group nor of the spec makes it durable");
    index.apply_mapping(key("m"), 3, red.clone(), BTreeSet::new());

    let stored = index.pins_stored(&effects.pins);
    assert_eq!(stored.dirty, BTreeMap::from([(document("a"), Urgency::Addition)]));
    assert_eq!(index.people("a"), BTreeSet::from([1, 2, 3]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
    assert_eq!(index.pins_stored(&effects.pins), Effects::default(), "once");

    index.change(&named(1, "old-red"));
    index.change(&named(3, "red"));
    let effects = index.apply_mapping(key("m"), 3, red, BTreeSet::from([group(3)]));
    assert_eq!(index.enforcement_of("m", &document("a")), everything(FreezeReason::NotLoaded));
    let stored = index.pins_stored(&effects.pins);
    assert_eq!(stored.dirty, BTreeMap::from([(document("a"), Urgency::Revocation)]));
    assert_eq!(index.enforcement_of("m", &document("a")), NOTHING);
}

#[test]
fn a_service_of_a_new_uid_is_planned_again() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    let mut recreated = inventory(&["a", "b"]);
    for item in &mut recreated.resources {
        item.uid.push_str("-2");
    }
    let effects = index.apply_inventory(&target("t"), recreated);
    assert_eq!(effects.dirty, BTreeMap::from([(document("a"), Urgency::Addition)]));
}

#[test]
fn of_two_targets_that_cover_one_region_the_older_wins_whichever_came_first() {
    for reversed in [false, true] {
        let mut index = index();
        let young = json!([
            {"target": {"name": "young"}, "resources": ["services/a"], "roles": [VIEWER]},
        ]);
        index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
        index.map("y", with(&spec(&["red"], &["services/a"], &[INVOKER]), [("grants", young)]));
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let (t, young) = if reversed { (at(2), at(1)) } else { (at(1), at(2)) };
        index.apply_target(target("young"), target_spec(&["l"], &allow_all()), young);
        index.apply_target(target("t"), target_spec(&["l"], &allow_all()), t);
        index.apply_inventory(&target("young"), inventory(&["a"]));
        let (winner, loser) = if reversed { ("y", "m") } else { ("m", "y") };
        let lines = index.wanted(&document("a"));
        assert!(lines.len() == 2 && lines.iter().all(|line| line.contains(&format!(" {winner} "))), "{lines:?}");
        assert_eq!(index.enforcement_of(loser, &document("a")), Enforcement::Frozen(FreezeReason::OverlappingTarget));
        assert_eq!(index.mapping(&key(loser)).unwrap().acceptance, Acceptance::OverlappingTarget);
        let view = index.target(&target(if reversed { "t" } else { "young" })).unwrap();
        assert_eq!(view.overlapped, BTreeMap::from([("l".into(), target(if reversed { "young" } else { "t" }))]));
    }
}

#[test]
fn effects_of_a_change_do_not_grow_with_the_group() {
    let mut index = index();
    index.map("m", spec(&["red"], &["services/a"], &[INVOKER]));
    for n in 100..5_100 {
        index.change(&person(n));
    }
    let everybody: Vec<u128> = (100..5_100).collect();
    let effects = index.change(&joined(1, &everybody));
    assert_eq!(effects.dirty.len(), 1);
    assert_eq!(index.people("a").len(), 5_002);
    let effects = index.change(&inactive(100));
    assert_eq!((effects.dirty.len(), effects.mappings.len()), (1, 1));
}
