use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::fixtures::*;
use super::*;
use crate::model::{
    Claim, ClaimTerms, Condition, ConditionHash, DesiredGrant, Enforcement, FreezeReason, GrantState, Intent, Keep,
    Principal,
};

const PEOPLE: u128 = 6;
const MAPPINGS: [&str; 3] = ["a", "b", "c"];

/// A role, its members and the optional title of a condition.
type AnyBinding = (&'static str, Vec<String>, Option<String>);

fn any_binding() -> impl Strategy<Value = AnyBinding> {
    let member = prop_oneof![
        (1..=PEOPLE).prop_map(email),
        (1..=PEOPLE).prop_map(|n| email(n).to_uppercase().replace("USER:", "user:")),
        Just("allUsers".to_owned()),
        Just("deleted:user:p1@corp.example?uid=1".to_owned()),
        "[a-z]{1,6}:[A-Za-z0-9@./]{1,8}",
    ];
    let role = prop_oneof![Just(INVOKER), Just(VIEWER), Just("roles/owner"), Just("nonsense")];
    (role, prop::collection::vec(member, 0..6), prop::option::weighted(0.2, "[a-z]{1,4}"))
}

fn any_claims() -> impl Strategy<Value = Vec<(usize, bool, bool)>> {
    prop::collection::vec((0..MAPPINGS.len(), any::<bool>(), any::<bool>()), 0..3)
}

fn claim(at: usize, person: u128) -> Claim {
    Claim { mapping: mapping(MAPPINGS[at]), subject: user(person) }
}

fn any_stance() -> impl Strategy<Value = Option<Enforcement>> {
    prop_oneof![
        Just(None),
        Just(Some(Enforcement::Frozen(FreezeReason::Observed))),
        Just(Some(Enforcement::Live { keep: Keep::Nothing })),
        Just(Some(Enforcement::Live { keep: Keep::Subjects(BTreeMap::from([(user(1), None), (user(2), None)])) })),
        Just(Some(Enforcement::Live { keep: Keep::Everything(FreezeReason::GroupNotFound) })),
        any::<bool>().prop_map(|orphan| Some(Enforcement::Ended { orphan })),
    ]
}

prop_compose! {
    fn any_row()(
        person in 1..=PEOPLE,
        role in prop_oneof![Just(INVOKER), Just(VIEWER)],
        state in prop_oneof![Just(GrantState::Wanted), Just(GrantState::Owned), Just(GrantState::Unowned), Just(GrantState::Lost)],
        claims in any_claims(),
        intent in prop::option::of((any::<bool>(), any::<bool>(), any::<bool>(), 0..1200_i64)),
        times in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) -> LedgerRow {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        LedgerRow {
            grant: key(role, &email(person)),
            member: email(person),
            condition: None,
            state,
            intent: intent.map(|(grant, moved, present_before, ago)| Intent {
                action: if grant { IntentAction::Grant } else { IntentAction::Revoke },
                revision_before: if moved { "older".into() } else { "e0".into() },
                present_before,
                at: now - jiff::SignedDuration::from_secs(ago),
                plan_hash: "p".into(),
            }),
            claims: claims.into_iter().map(|(at, ..)| claim(at, person)).collect(),
            grounds: BTreeMap::new(),
            acknowledged_at: times.0.then_some(now),
            verified_at: (times.0 && times.1).then_some(now),
            revoking_since: times.2.then_some(now),
            held: times.2 && times.1,
            resource_uid: None,
            stored_as: BTreeSet::new(),
            left_at: None,
        }
    }
}

prop_compose! {
    fn any_fixture()(
        bindings in prop::collection::vec(any_binding(), 0..5),
        rows in prop::collection::vec(any_row(), 0..10),
        wants in prop::collection::vec((1..=PEOPLE, any::<bool>(), any_claims()), 0..10),
        enforcements in prop::collection::vec(any_stance(), MAPPINGS.len()),
        left in prop::collection::btree_set(1..=PEOPLE, 0..3),
        adopts in prop::option::weighted(0.3, 0..MAPPINGS.len()),
    ) -> Fixture {
        let mut fixture = Fixture::new(&json!([]));
        for (role, members, title) in bindings {
            let condition = title.map(|title| Condition { title, expression: "true".into(), ..Condition::default() });
            for member in members {
                put(&mut fixture.live, role, ConditionHash::of(condition.as_ref()), &member);
            }
        }
        fixture.ledger = rows.into_iter().map(|row| (row.grant.clone(), row)).collect();
        for (at, enforcement) in enforcements.into_iter().enumerate() {
            fixture.desired.enforcements.extend(enforcement.map(|enforcement| (mapping(MAPPINGS[at]), enforcement)));
        }
        for (person, role, claims) in wants.into_iter().filter(|(_, _, claims)| !claims.is_empty()) {
            let member = Principal::google_account(&email(person)[5..], &["corp.example".into()]).unwrap();
            let claims = claims
                .into_iter()
                .map(|(at, write, regrant)| (claim(at, person), ClaimTerms { write, regrant }))
                .collect();
            let grant = key(if role { INVOKER } else { VIEWER }, &email(person));
            let wanted = DesiredGrant {
                member,
                condition: None,
                claims,
                grounds: BTreeMap::new(),
                allowed_domains: ["corp.example".to_owned()].into(),
            };
            fixture.desired.grants.insert(grant, wanted);
        }
        fixture.left = left.into_iter().map(user).collect();
        if let Some(at) = adopts {
            fixture.adopt(MAPPINGS[at]);
        }
        fixture
    }
}

fn grants(steps: &[Step]) -> BTreeSet<GrantKey> {
    steps.iter().map(|step| step.grant().clone()).collect()
}

proptest! {
    #[test]
    fn planning_again_after_the_write_finds_nothing_to_write(mut fixture in any_fixture()) {
        fixture.pass();
        let again = fixture.pass();
        prop_assert!(again.changes.is_none(), "{:?} {:?}", again.add, again.remove);
        let third = fixture.plan();
        prop_assert!(third.ledger.is_empty() && third.audit.is_empty(), "{:?} {:?}", third.ledger, third.audit);
    }

    #[test]
    fn nothing_foreign_is_changed_and_what_is_changed_are_the_steps(fixture in any_fixture()) {
        let plan = fixture.plan();
        if let Some(changes) = &plan.changes {
            let added: BTreeSet<GrantKey> = changes.add.iter().map(|addition| addition.grant.clone()).collect();
            prop_assert_eq!(&added, &grants(&plan.add));
            prop_assert_eq!(added.len(), changes.add.len());
            let gone = plan.remove.iter().flat_map(|step| &step.out).chain(&plan.sweep);
            prop_assert_eq!(&gone.cloned().collect::<BTreeSet<_>>(), &changes.remove);
            let theirs = |grant: &GrantKey| {
                fixture.ledger.values().any(|row| {
                    row.grant == *grant || grant.member.as_str().starts_with(&format!("deleted:{}?uid=", row.grant.member))
                })
            };
            let touched = added.iter().chain(&changes.remove);
            let ours = |grant: &GrantKey| theirs(grant) || fixture.desired.grants.contains_key(grant);
            prop_assert!(touched.clone().all(ours));
            prop_assert_eq!(&plan.read().revision, &fixture.live.revision);
        }
    }

    #[test]
    fn only_what_is_ours_is_removed_and_only_what_may_be_written_is_added(fixture in any_fixture()) {
        let plan = fixture.plan();
        for step in &plan.remove {
            let row = fixture.row(step.grant());
            let committed = row.intent.as_ref().is_some_and(|intent| {
                intent.action == IntentAction::Grant && !intent.present_before && intent.revision_before != fixture.live.revision
            });
            prop_assert!(row.state == GrantState::Owned || committed);
            prop_assert!(!fixture.desired.grants.get(step.grant()).is_some_and(|want| want.claims.values().any(|t| t.write)));
        }
        for step in &plan.add {
            prop_assert!(fixture.desired.grants[step.grant()].claims.values().any(|terms| terms.write));
        }
        let (changes, _) = plan.intend(fixture.now);
        let mut seen = BTreeSet::new();
        for change in &changes {
            let (LedgerChange::Put(LedgerRow { grant, .. }) | LedgerChange::Remove(grant)) = change;
            prop_assert!(seen.insert(grant.clone()));
        }
    }

    #[test]
    fn the_counts_of_each_mapping_add_up_whatever_the_outcome(fixture in any_fixture(), end in 0..4_u8, some in any::<bool>()) {
        let whole = fixture.plan();
        let plan = if some { whole.with_additions(|step| step.grant().role.as_str() == INVOKER) } else { None };
        let plan = plan.as_ref().unwrap_or(&whole);
        let outcome = match end {
            0 => None,
            1 => Some(CallOutcome::Acknowledged { revision: "x".into() }),
            2 => Some(refused()),
            _ => Some(CallOutcome::Unknown),
        };
        let claim_counts = plan.counts(outcome.as_ref());
        for (key, counts) in &claim_counts {
            let there = counts.acknowledged + counts.pending + counts.failed;
            let kept_back = counts.missing + counts.observed + counts.frozen;
            prop_assert_eq!(counts.desired, there + kept_back, "{}: {:?}", key, counts);
            prop_assert!(counts.verified <= counts.acknowledged && counts.unowned <= counts.verified, "{:?}", counts);
        }
        for name in MAPPINGS {
            let key = mapping(name);
            let wanted = fixture.desired.grants.values().filter(|grant| grant.claims.keys().any(|c| c.mapping == key));
            let counted = claim_counts.get(&key).map_or(0, |counts| counts.desired);
            prop_assert!(wanted.count() <= counted, "{} of what {} wants is not counted", name, counted);
        }
    }

    #[test]
    fn recorded_inputs_give_the_same_plan_again(fixture in any_fixture()) {
        let inputs = fixture.inputs();
        let written = serde_json::to_string(&inputs).unwrap();
        let read: Inputs = serde_json::from_str(&written).unwrap();
        prop_assert_eq!(plan(&read), plan(&inputs));
        prop_assert_eq!(read, inputs);
    }

    #[test]
    fn the_order_of_rows_does_not_matter(fixture in any_fixture(), seed in any::<u64>()) {
        let mut rows: Vec<LedgerRow> = fixture.ledger.values().cloned().collect();
        let inputs =
            |rows: &[LedgerRow]| plan(&Inputs { ledger: rows.iter().cloned().map(Arc::new).collect(), ..fixture.inputs() });
        let plain = inputs(&rows);
        rows.reverse();
        let turn = usize::try_from(seed % 10).unwrap() % rows.len().max(1);
        rows.rotate_left(turn);
        prop_assert_eq!(&inputs(&rows), &plain);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Want(usize, u128),
    Unwant(usize, u128),
    StrangerComes(u8),
    StrangerTakesOurs(u128),
    Planner(Edge),
    InFlightLands,
    Wait(i64),
}

/// The point at which a reconcile is cut off.
#[derive(Debug, Clone, Copy)]
enum Edge {
    Whole,
    KilledAfterIntend,
    KilledAfterSet,
    TimedOut,
    Refused,
    RefusedThenRemovalsOnly,
    Raced,
}

fn any_event() -> impl Strategy<Value = Event> {
    let edge = prop_oneof![
        Just(Edge::Whole),
        Just(Edge::KilledAfterIntend),
        Just(Edge::KilledAfterSet),
        Just(Edge::TimedOut),
        Just(Edge::Refused),
        Just(Edge::RefusedThenRemovalsOnly),
        Just(Edge::Raced),
    ];
    prop_oneof![
        3 => (0..MAPPINGS.len(), 1..=PEOPLE).prop_map(|(at, person)| Event::Want(at, person)),
        3 => (0..MAPPINGS.len(), 1..=PEOPLE).prop_map(|(at, person)| Event::Unwant(at, person)),
        1 => any::<u8>().prop_map(Event::StrangerComes),
        1 => (1..=PEOPLE).prop_map(Event::StrangerTakesOurs),
        6 => edge.prop_map(Event::Planner),
        2 => Just(Event::InFlightLands),
        1 => (1..400_i64).prop_map(Event::Wait),
    ]
}

/// A call that may still take effect: the document as it was read, and as it is sent.
type Call = (String, Live);

fn lands(fixture: &mut Fixture, (revision, sent): &Call) {
    if *revision == fixture.live.revision {
        fixture.live = sent.clone();
        fixture.touch();
    }
}

fn cut_off(fixture: &mut Fixture, edge: Edge, in_flight: &mut Vec<Call>) {
    fixture.later(1);
    let plan = fixture.plan();
    let Some(changes) = &plan.changes else { return fixture.record((plan.ledger.clone(), plan.audit.clone())) };
    let call = (plan.read().revision.clone(), plan.read().after(changes));
    fixture.record(plan.intend(fixture.now));
    let acknowledged = CallOutcome::Acknowledged { revision: "x".into() };
    match edge {
        // The call was sent, or is sent when the suspended process resumes.
        Edge::KilledAfterIntend => in_flight.push(call),
        Edge::KilledAfterSet => lands(fixture, &call),
        Edge::TimedOut => {
            in_flight.push(call);
            fixture.record(plan.settle(&CallOutcome::Unknown, fixture.now));
        }
        Edge::Refused => fixture.record(plan.settle(&refused(), fixture.now)),
        Edge::RefusedThenRemovalsOnly => {
            fixture.record(plan.settle(&refused(), fixture.now));
            if let Some(alone) = plan.removals_only() {
                fixture.record(alone.intend(fixture.now));
                fixture.commit(&alone);
                fixture.record(alone.settle(&acknowledged, fixture.now));
            }
        }
        Edge::Raced => {
            fixture.touch();
            fixture.record(plan.settle(&CallOutcome::Conflict, fixture.now));
        }
        Edge::Whole => {
            // An earlier call may take effect between the read and this call.
            lands(fixture, &call);
            fixture.record(plan.settle(&acknowledged, fixture.now));
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_cut_off_in_between_it_converges_with_nothing_foreign_lost_and_no_orphan(
        there_before in prop::collection::btree_set(1..=PEOPLE, 0..3),
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let before: Vec<String> = there_before.iter().map(|person| email(*person)).collect();
        let mut fixture = Fixture::new(&json!([{"role": INVOKER, "members": before}]));
        let mut strangers: BTreeSet<String> = before.into_iter().collect();
        let mut in_flight: Vec<Call> = Vec::new();
        for name in MAPPINGS {
            fixture.enforcement(name, Enforcement::Live { keep: Keep::Nothing });
        }
        for event in events {
            match event {
                Event::Want(at, person) => fixture.want(MAPPINGS[at], INVOKER, person, WRITE),
                Event::Unwant(at, person) => {
                    for grant in fixture.desired.grants.values_mut() {
                        grant.claims.remove(&claim(at, person));
                    }
                    fixture.desired.grants.retain(|_, grant| !grant.claims.is_empty());
                }
                Event::StrangerComes(n) => {
                    let member = format!("user:stranger{n}@elsewhere.example");
                    if strangers.insert(member.clone()) {
                        fixture.stranger(INVOKER, &member, true);
                    }
                }
                Event::StrangerTakesOurs(person) => {
                    strangers.remove(&email(person));
                    fixture.stranger(INVOKER, &email(person), false);
                }
                Event::Planner(edge) => cut_off(&mut fixture, edge, &mut in_flight),
                Event::InFlightLands => {
                    if let Some(call) = in_flight.pop() {
                        lands(&mut fixture, &call);
                    }
                }
                Event::Wait(seconds) => fixture.later(seconds),
            }
        }
        for _ in 0..4 {
            fixture.pass();
        }
        let end = fixture.plan();
        prop_assert!(end.changes.is_none() && end.ledger.is_empty() && end.audit.is_empty());
        let wanted: BTreeSet<String> = fixture.desired.grants.values().map(|grant| grant.member.to_string()).collect();
        let live: BTreeSet<String> = fixture.members(INVOKER).into_iter().map(str::to_owned).collect();
        prop_assert_eq!(live, &wanted | &strangers);
        for (grant, row) in &fixture.ledger {
            let ours = !strangers.contains(&row.member);
            prop_assert_eq!(row.state, if ours { GrantState::Owned } else { GrantState::Unowned });
            prop_assert!(fixture.desired.grants.contains_key(grant) && row.intent.is_none());
        }
        // However late they arrive, no call that was cut off can take effect any more.
        prop_assert!(in_flight.iter().all(|(revision, _)| *revision != fixture.live.revision));
        // In the audit, no call ends more often than it was intended.
        let mut open: BTreeMap<(String, Option<GrantKey>, Option<String>), i32> = BTreeMap::new();
        for entry in fixture.audit.iter().filter(|entry| entry.plan_hash.is_some()) {
            let call = (entry.action.clone(), entry.grant.clone(), entry.plan_hash.clone());
            *open.entry(call).or_default() += if entry.outcome == crate::model::AuditOutcome::Intended { 1 } else { -1 };
        }
        prop_assert!(open.values().all(|left| *left >= 0));
    }
}
