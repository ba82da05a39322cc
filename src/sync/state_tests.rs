//! Tests of the state.

use super::*;
use crate::catalog::Ceiling;

#[test]
fn a_change_that_comes_while_a_pass_writes_is_pending_until_the_pass_that_serves_it() {
    let mut state = State::new(Catalog::new(Ceiling::Enforce));
    let document: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
    let first: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
    let later = first + SignedDuration::from_secs(1);
    state.document(&document).note(&Trigger::event(1, first));
    let served = state.document(&document).take_trigger();
    state.document(&document).note(&Trigger::event(2, later));
    state.settle_document(&document, ReconcileOutcome::new(served), later);
    assert_eq!(state.document(&document).pending_since, Some(later));
    let served = state.document(&document).take_trigger();
    state.settle_document(&document, ReconcileOutcome::new(served), later);
    assert_eq!(state.document(&document).pending_since, None);
}

#[test]
fn a_change_that_comes_while_nothing_is_found_to_do_is_not_forgotten() {
    let mut state = State::new(Catalog::new(Ceiling::Enforce));
    let document: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
    let first: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
    let later = first + SignedDuration::from_secs(1);
    let idle = |served| ReconcileOutcome { idle: true, ..ReconcileOutcome::new(served) };
    state.document(&document).note(&Trigger::event(1, first));
    let served = state.document(&document).take_trigger();
    state.document(&document).note(&Trigger::event(2, later));
    state.settle_document(&document, idle(served), later);
    assert_eq!(state.document(&document).pending_since, Some(later));
    let served = state.document(&document).take_trigger();
    assert_eq!((served.since, served.seqs.as_slice()), (Some(later), &[2][..]));
    state.settle_document(&document, idle(served), later);
    assert!(!state.documents.contains_key(&document), "nothing is left to remember");
}

#[test]
fn document_is_unclear_until_it_was_read_and_while_it_fails_or_something_waits() {
    let mut state = State::new(Catalog::new(Ceiling::Enforce));
    let document: DocumentKey = "run:projects/p/locations/l/services/s".parse().unwrap();
    let now: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
    assert!(state.is_unclear(&document), "not read yet");
    state.document(&document).found = Some(LastPlan::default());
    assert!(!state.is_unclear(&document));
    state.document(&document).note(&Trigger::event(1, now));
    assert!(state.is_unclear(&document), "something waits");
    let served = state.document(&document).take_trigger();
    let failed = ReconcileOutcome { error: Some(EngineError::StaleRead), ..ReconcileOutcome::new(served) };
    state.settle_document(&document, failed, now);
    assert!(state.is_unclear(&document), "it cannot be read");
    let served = state.document(&document).take_trigger();
    state.settle_document(&document, ReconcileOutcome::new(served), now);
    assert!(!state.is_unclear(&document));
    state.documents.clear();
    state.idle.insert(document.clone());
    assert!(!state.is_unclear(&document), "there is nothing to read");
    let dirty = [(document.clone(), Urgency::Addition)].into();
    state.note(&Effects { dirty, ..Effects::default() }, &Trigger::none());
    assert!(state.is_unclear(&document), "something changed, and nobody has looked");
}
