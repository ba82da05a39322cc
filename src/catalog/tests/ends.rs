//! Conditions of grants, and grants that end.

use super::*;
use crate::model::{Condition, ConditionHash, GrantKey, Ground};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A mapping of the group `red` with these entries, each on the resources with the role invoker.
fn entries(resources: &[&str], entries: &[serde_json::Value]) -> RoleMappingSpec {
    let grants: Vec<serde_json::Value> = entries
        .iter()
        .map(|entry| {
            let mut grant = json!({"target": {"name": "t"}, "resources": resources, "roles": [INVOKER]});
            grant.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
            grant
        })
        .collect();
    with(&spec(&["red"], resources, &[INVOKER]), [("grants", json!(grants))])
}

fn grants(index: &Catalog, document: &DocumentKey) -> Vec<(GrantKey, Option<Condition>, Vec<Ground>)> {
    let desired = index.desired(document, &BTreeSet::new());
    let each = desired.grants.into_iter();
    each.map(|(key, grant)| (key, grant.condition, grant.grounds.into_values().collect())).collect()
}

fn index_with_jobs() -> Catalog {
    let mut index = index();
    let allow = json!([allow(&["okta"], &["services/*", "jobs/*", "workerPools/*"], &[INVOKER])]);
    index.apply_target(target("t"), target_spec(&["l"], &allow), Timestamp::UNIX_EPOCH);
    let mut listed = inventory(&["a"]);
    for name in ["jobs/j", "workerPools/w"] {
        listed.resources.push(InventoryItem {
            document: format!("run:projects/p/locations/l/{name}").parse().unwrap(),
            uid: name.to_owned(),
            labels: BTreeMap::new(),
            invoker_iam_disabled: false,
        });
    }
    index.apply_inventory(&target("t"), listed);
    index
}

#[test]
fn an_end_is_a_condition_where_policies_take_conditions() {
    let mut index = index_with_jobs();
    let end = json!({"notAfter": "2027-03-31T00:00:00.7Z"});
    index.map("m", entries(&["services/a", "jobs/j"], &[end]));
    let service = grants(&index, &document("a"));
    let condition = service[0].1.clone().unwrap();
    assert_eq!(condition.title, "rolecall-not-after");
    assert_eq!(condition.expression, "request.time < timestamp(\"2027-03-31T00:00:00Z\")");
    assert_eq!(service[0].0.condition, ConditionHash::of(Some(&condition)));
    let job = grants(&index, &"run:projects/p/locations/l/jobs/j".parse().unwrap());
    assert_eq!((job.len(), &job[0].1, job[0].0.condition.as_str()), (2, &None, ""));
    for (_, _, grounds) in service.iter().chain(&job) {
        assert_eq!(grounds[0].not_after, Some(at("2027-03-31T00:00:00Z")), "to the second, and never later");
    }
}

#[test]
fn a_condition_is_refused_where_policies_take_none_and_the_rest_stands() {
    let mut index = index_with_jobs();
    let condition = json!({"condition": {"title": "office-hours", "expression": "request.time.getHours() < 18"}});
    index.map("m", entries(&["services/a", "jobs/j", "workerPools/*"], &[condition, json!({})]));
    let (a, j) = (document("a"), "run:projects/p/locations/l/jobs/j".parse().unwrap());
    assert_eq!(
        (grants(&index, &a).len(), grants(&index, &j).len()),
        (4, 2),
        "with and without condition are two grants"
    );
    let view = index.mapping(&key("m")).unwrap();
    let refused: Vec<_> =
        view.refused.iter().map(|part| (part.reason, part.path.as_str(), part.resource.as_str())).collect();
    assert_eq!(
        refused,
        [
            (Reason::ConditionNotSupported, "spec.grants[0].condition", "jobs/j"),
            (Reason::ConditionNotSupported, "spec.grants[0].condition", "workerPools/*"),
        ]
    );
    let long = json!({"condition": {"title": "long", "expression": vec!["a"; 14].join(" && ")}});
    index.map("m", entries(&["services/a"], &[long]));
    assert_eq!(grants(&index, &a).len(), 0);
    assert_eq!(index.mapping(&key("m")).unwrap().refused[0].reason, Reason::ConditionInvalid);
}

#[test]
fn what_ends_is_due_when_time_passes_it_and_comes_back_when_time_goes_back_or_the_end_is_edited() {
    let mut index = index_with_jobs();
    index.advance_to(at("2027-03-30T00:00:00Z"));
    let end = |text: &str| json!({"notAfter": text});
    index.map("m", entries(&["services/a", "jobs/j"], &[end("2027-03-31T00:00:00Z")]));
    assert_eq!(index.next_end(), Some(at("2027-03-31T00:00:00Z")));
    assert_eq!(index.advance_to(at("2027-03-30T23:59:59Z")), Effects::default());
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));

    let effects = index.advance_to(at("2027-03-31T00:00:00Z"));
    let due: Vec<_> = effects.dirty.values().copied().collect();
    assert_eq!((due, effects.mappings), (vec![Urgency::Revocation; 2], BTreeSet::from([key("m")])));
    assert_eq!((index.people("a"), index.next_end()), (BTreeSet::new(), None));
    assert_eq!(index.ended_documents().len(), 2);
    let desired = index.desired(&document("a"), &BTreeSet::new());
    assert_eq!(desired.ended[&key("m")].iter().map(ToString::to_string).collect::<Vec<_>>(), [INVOKER]);
    assert_eq!(index.mapping(&key("m")).unwrap().ends.ended, 4);

    let back = index.advance_to(at("2027-03-30T12:00:00Z"));
    assert_eq!(back.dirty.values().copied().collect::<Vec<_>>(), vec![Urgency::Addition; 2]);
    assert_eq!(index.people("a"), BTreeSet::from([1, 2]));
    index.advance_to(at("2027-04-01T00:00:00Z"));
    index.put_mapping(key("m"), 2, entries(&["services/a"], &[end("2027-05-01T00:00:00Z")]), BTreeSet::new());
    assert_eq!((index.people("a"), index.mapping(&key("m")).unwrap().ends.ended), (BTreeSet::from([1, 2]), 0));
    assert_eq!(index.next_end(), Some(at("2027-05-01T00:00:00Z")));
    index.delete("m");
    index.forget_mapping(&key("m"));
    assert!(!index.has_ends());
}

#[test]
fn of_two_entries_that_give_the_same_the_later_end_counts_where_there_are_no_conditions() {
    let mut index = index_with_jobs();
    let j: DocumentKey = "run:projects/p/locations/l/jobs/j".parse().unwrap();
    let end = |text: &str| json!({"notAfter": text});
    index.map("m", entries(&["jobs/j", "services/a"], &[end("2027-03-31T00:00:00Z"), end("2027-04-30T00:00:00Z")]));
    assert_eq!((grants(&index, &j).len(), grants(&index, &document("a")).len()), (2, 4));
    assert_eq!(grants(&index, &j)[0].2[0].not_after, Some(at("2027-04-30T00:00:00Z")));
    index.advance_to(at("2027-04-01T00:00:00Z"));
    assert_eq!(index.people("j").len() + grants(&index, &j).len(), 2);
    let ends = index.mapping(&key("m")).unwrap().ends;
    assert_eq!(ends.ended, 2, "those on the service; on the job the grants go on");
    assert!(index.desired(&document("a"), &BTreeSet::new()).ended.is_empty(), "the role goes on");
    index.map("m", entries(&["jobs/j"], &[end("2027-03-31T00:00:00Z"), json!({})]));
    assert_eq!(grants(&index, &j)[0].2[0].not_after, None, "one that does not end");
}
