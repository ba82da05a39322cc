use uuid::Uuid;

use super::*;
use crate::model::{Claim, ConditionHash, GrantState, IntentAction, LedgerRow, Role, UserFacts, UserId};
use crate::plan::Cause;

fn now() -> Timestamp {
    "2027-01-31T12:00:00Z".parse().unwrap()
}

fn service(project: &str, name: &str) -> DocumentKey {
    format!("run:projects/{project}/locations/l/services/{name}").parse().unwrap()
}

fn mapping(name: &str) -> MappingKey {
    MappingKey::new("team", name).unwrap()
}

fn member(n: u128) -> MemberKey {
    MemberKey::of(&format!("user:p{n}@x.example"))
}

fn step(by: &str, n: u128) -> Step {
    let claim = Claim { mapping: mapping(by), subject: Subject::User(UserId(Uuid::from_u128(n))) };
    let row = LedgerRow {
        state: GrantState::Wanted,
        intent: None,
        claims: BTreeSet::from([claim]),
        grounds: BTreeMap::new(),
        resource_uid: None,
        stored_as: BTreeSet::new(),
        left_at: None,
        acknowledged_at: None,
        verified_at: None,
        revoking_since: None,
        held: false,
        grant: GrantKey {
            role: Role::new("roles/run.invoker").unwrap(),
            condition: ConditionHash::default(),
            member: member(n),
        },
        member: member(n).to_string(),
        condition: None,
    };
    Step::new(IntentAction::Grant, Cause::Wanted, row.clone(), row, BTreeSet::new())
}

fn unknown(n: u128) -> RefusalKey {
    RefusalKey { reach: Reach::Everywhere, member: Some(member(n)), role: None, condition: None }
}

fn left_out(refusals: &mut Refusals, document: &DocumentKey, people: &[u128]) -> usize {
    let steps: Vec<Step> = people.iter().map(|n| step("m", *n)).collect();
    refusals.withheld(document, steps.iter()).len()
}

#[test]
fn unknown_account_is_left_out_everywhere_and_an_organization_policy_holds_in_its_project() {
    let mut refusals = Refusals::default();
    refusals.refuse(unknown(1), "MemberRefused", now());
    let key =
        RefusalKey { reach: Reach::Project("p".to_owned()), member: Some(member(2)), role: None, condition: None };
    refusals.refuse(key, "DomainRestricted", now());
    assert_eq!(left_out(&mut refusals, &service("p", "a"), &[1, 2, 3]), 2);
    assert_eq!(left_out(&mut refusals, &service("q", "a"), &[1, 2, 3]), 1);
    assert_eq!(refusals.take_unstored().put.len(), 2);
}

#[test]
fn one_document_probes_and_another_one_when_that_has_nothing_left_out_any_more() {
    let mut refusals = Refusals::default();
    refusals.refuse(unknown(1), "MemberRefused", now());
    let (a, b) = (service("p", "a"), service("p", "b"));
    for document in [&b, &a] {
        left_out(&mut refusals, document, &[1]);
    }
    let later = now() + Refusal::FIRST_PROBE;
    let due = |refusals: &Refusals, document: &DocumentKey, at| refusals.due(document, [unknown(1)].iter(), at);
    assert_eq!(due(&refusals, &a, now()), (BTreeSet::new(), Some(later)));
    assert_eq!(due(&refusals, &b, later), (BTreeSet::new(), None));
    assert_eq!(due(&refusals, &a, later).0, BTreeSet::from([unknown(1)]));
    refusals.postpone(&unknown(1), later);
    assert_eq!(due(&refusals, &a, later).0, BTreeSet::new());
    refusals.forget_document(&a);
    assert_eq!(refusals.take_lifted(), BTreeSet::from([b.clone()]));
    assert_eq!(due(&refusals, &b, later + Refusal::LONGEST).0, BTreeSet::from([unknown(1)]));
}

#[test]
fn what_is_lifted_is_planned_again_wherever_it_was_left_out() {
    let documents = BTreeSet::from([service("p", "a"), service("q", "b")]);
    let prepared = || {
        let mut refusals = Refusals::default();
        refusals.refuse(unknown(1), "MemberRefused", now());
        refusals.refuse(unknown(2), "MemberRefused", now());
        for document in &documents {
            left_out(&mut refusals, document, &[1]);
        }
        left_out(&mut refusals, &service("p", "c"), &[2]);
        refusals.take_unstored();
        refusals
    };
    let facts = |n| UserFacts {
        id: UserId(Uuid::from_u128(n)),
        active: true,
        user_name: String::new(),
        external_id: None,
        emails: vec![],
    };
    let group = crate::model::GroupId(Uuid::from_u128(9));
    let joined = |n| DirectoryChange::Members { group, added: vec![UserId(Uuid::from_u128(n))], removed: vec![] };
    for change in [DirectoryChange::User(facts(1)), joined(1)] {
        let mut refusals = prepared();
        refusals.directory_changed(&change);
        assert_eq!(refusals.take_lifted(), documents, "{change:?}");
        assert_eq!(refusals.take_unstored().remove, BTreeSet::from([unknown(1)]));
        assert!(refusals.get(&unknown(1)).is_none() && refusals.get(&unknown(2)).is_some());
    }
    let mut refusals = prepared();
    refusals.directory_changed(&DirectoryChange::User(facts(7)));
    refusals.mappings_changed(&BTreeSet::from([mapping("other")]));
    assert_eq!(refusals.take_lifted(), BTreeSet::new(), "somebody else's change");
    refusals.mappings_changed(&BTreeSet::from([mapping("m")]));
    assert_eq!(refusals.take_lifted().len(), 3);
    let mut refusals = prepared();
    refusals.people_added(|person| person == UserId(Uuid::from_u128(7)));
    assert_eq!(refusals.take_lifted(), BTreeSet::new(), "nobody who is refused is in the groups");
    refusals.people_added(|person| person == UserId(Uuid::from_u128(1)));
    assert_eq!(refusals.take_unstored().remove, BTreeSet::from([unknown(1)]));
    let mut refusals = prepared();
    refusals.project_changed("q");
    assert_eq!(refusals.take_lifted(), documents);
}

#[test]
fn documents_with_the_same_people_wait_for_the_one_that_finds_out() {
    let mut refusals = Refusals::default();
    let (a, b, c) = (service("p", "a"), service("p", "b"), service("p", "c"));
    let at = Instant::now();
    let people = |all: &[u128]| -> BTreeSet<MemberKey> { all.iter().map(|n| member(*n)).collect() };
    refusals.isolate(&a, people(&[1, 2]), at);
    refusals.isolate(&b, people(&[2]), at);
    assert!(!refusals.must_wait(&a, &people(&[1, 2]), at));
    assert!(refusals.must_wait(&b, &people(&[2, 3]), at));
    assert!(!refusals.must_wait(&c, &people(&[3]), at), "nobody in doubt");
    assert!(!refusals.must_wait(&c, &people(&[1]), at + ISOLATING), "and not for ever");
    refusals.release(&b);
    assert_eq!(refusals.take_lifted(), BTreeSet::new());
    refusals.release(&a);
    assert_eq!(refusals.take_lifted(), BTreeSet::from([b]));
}
