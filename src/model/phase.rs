//! Phases of a mapping and the transitions between them. The module is pure: it neither observes events nor carries out
//! effects.

use super::FreezeReason;

/// What happens to the claims of a mapping that terminates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ClaimDisposal {
    /// The grants made for the claims are revoked.
    Revoke,
    /// The grants stay and the ledger forgets them, as far as their target permits it.
    Orphan,
}

/// Phase of a mapping. A mapping without a phase is unknown: it was never in force, or nothing is left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MappingPhase {
    /// In force.
    Live,
    /// Missing without an observed deletion, for this reason: its claims are frozen.
    Missing(FreezeReason),
    /// Deleted: its claims end.
    Terminating(ClaimDisposal),
    /// Not deleted, but its removal was approved by a person or follows from uninstalling rolecall: its claims end.
    ApprovedForRemoval(ClaimDisposal),
    /// Deleted, and the finalizer was removed before the claims could end: they still end as soon as possible.
    RevocationDeferred(ClaimDisposal),
    /// Deleted with grants that were to stay although their target does not permit it. Only claims of people who have
    /// not left remain.
    Orphaned,
}

/// An event that can change the phase of a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PhaseEvent {
    /// An object of this name exists and is not being deleted: a new one, a new version, or a file that is back.
    Applied,
    /// Its deletion was observed.
    DeletionObserved(ClaimDisposal),
    /// The mapping is missing, and no deletion was observed.
    FoundMissing(FreezeReason),
    /// A person approved that a missing mapping is treated as deleted.
    RemovalApproved(ClaimDisposal),
    /// rolecall is being uninstalled.
    UninstallRequested(ClaimDisposal),
    /// Its claims could not be ended within the deadline of its finalizer.
    DeadlineExceeded,
    /// Only orphaned grants remain, which stay until their people leave.
    OnlyOrphansLeft,
    /// The ledger holds no claim of the mapping any more.
    ClaimsEnded,
}

/// An effect of a transition. The effects of one transition are carried out in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum PhaseEffect {
    /// Store the new phase with the spec, before any other effect.
    Persist,
    /// Mark the claims as deferred in the ledger.
    MarkDeferred,
    /// Plan the documents that the mapping covers again, immediately.
    Plan,
    /// Plan the documents on which the ledger holds claims of the mapping again, immediately.
    PlanClaimed,
    /// Forget the spec and the pins.
    Forget,
    /// Fold the status again.
    Report,
}

/// The phase after an event, and the effects of the transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transition {
    /// The new phase; none when nothing is known of the mapping any more.
    pub(crate) next: Option<MappingPhase>,
    /// The effects to carry out.
    pub(crate) effects: &'static [PhaseEffect],
}

/// Effects when claims start to end, or come into force.
const END: &[PhaseEffect] = &[PhaseEffect::Persist, PhaseEffect::Plan, PhaseEffect::PlanClaimed, PhaseEffect::Report];
const FREEZE: &[PhaseEffect] = &[PhaseEffect::Persist, PhaseEffect::Plan, PhaseEffect::Report];
const DEFER: &[PhaseEffect] = &[PhaseEffect::MarkDeferred, PhaseEffect::Report];
const FORGET: &[PhaseEffect] = &[PhaseEffect::Forget, PhaseEffect::Report];
const REPORT: &[PhaseEffect] = &[PhaseEffect::Report];
const NOTHING: &[PhaseEffect] = &[];

impl MappingPhase {
    /// Computes the transition from this phase.
    #[must_use]
    pub(crate) fn on(self, event: PhaseEvent) -> Transition {
        Self::after(Some(self), event)
    }

    /// As [`MappingPhase::on`], also for a mapping of which nothing is known.
    #[must_use]
    pub(crate) fn after(phase: Option<Self>, event: PhaseEvent) -> Transition {
        use MappingPhase::{ApprovedForRemoval, Live, Missing, Orphaned, RevocationDeferred, Terminating};
        use PhaseEvent::{
            Applied, ClaimsEnded, DeadlineExceeded, DeletionObserved, FoundMissing, OnlyOrphansLeft, RemovalApproved,
            UninstallRequested,
        };
        let to = |next, effects| Transition { next: Some(next), effects };
        let stays = Transition { next: phase, effects: NOTHING };
        match (phase, event) {
            // The object is stored with its spec, which replaces the phase of any former object.
            (_, Applied) => to(Live, END),
            // A mapping whose finalizer was removed before its claims ended still owes their revocation.
            (Some(RevocationDeferred(_)), DeletionObserved(claims) | UninstallRequested(claims)) => {
                to(RevocationDeferred(claims), END)
            }
            (_, DeletionObserved(claims)) => to(Terminating(claims), END),
            (None | Some(Live), FoundMissing(why)) => to(Missing(why), FREEZE),
            (Some(Missing(_)), FoundMissing(why)) => to(Missing(why), REPORT),
            (_, UninstallRequested(claims)) | (None | Some(Missing(_)), RemovalApproved(claims)) => {
                to(ApprovedForRemoval(claims), END)
            }
            (Some(Terminating(claims) | ApprovedForRemoval(claims)), DeadlineExceeded) => {
                to(RevocationDeferred(claims), DEFER)
            }
            (
                Some(
                    Terminating(ClaimDisposal::Orphan)
                    | ApprovedForRemoval(ClaimDisposal::Orphan)
                    | RevocationDeferred(ClaimDisposal::Orphan),
                ),
                OnlyOrphansLeft,
            ) => to(Orphaned, REPORT),
            (Some(Terminating(_) | ApprovedForRemoval(_) | RevocationDeferred(_) | Orphaned), ClaimsEnded) => {
                Transition { next: None, effects: FORGET }
            }
            // A terminating mapping is neither missing nor in need of approval. A live mapping is not forgotten because
            // it has no claims, and approving the removal of a missing mapping does not apply to a live one.
            (
                None
                | Some(Live | Missing(_) | Terminating(_) | ApprovedForRemoval(_) | RevocationDeferred(_) | Orphaned),
                FoundMissing(_) | RemovalApproved(_) | DeadlineExceeded | OnlyOrphansLeft | ClaimsEnded,
            ) => stays,
        }
    }

    /// What happens to the claims, if they end.
    #[must_use]
    pub(crate) fn disposal(self) -> Option<ClaimDisposal> {
        match self {
            Self::Live | Self::Missing(_) => None,
            Self::Terminating(claims) | Self::ApprovedForRemoval(claims) | Self::RevocationDeferred(claims) => {
                Some(claims)
            }
            Self::Orphaned => Some(ClaimDisposal::Orphan),
        }
    }

    /// True when the claims end, or are kept only until their people leave.
    #[must_use]
    pub(crate) fn is_terminating(self) -> bool {
        self.disposal().is_some()
    }

    /// The freeze reason, if the mapping is missing.
    #[must_use]
    pub(crate) fn missing(self) -> Option<FreezeReason> {
        match self {
            Self::Missing(why) => Some(why),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ClaimDisposal::{Orphan, Revoke};
    use FreezeReason::{ManifestsMissing, MappingMissing};
    use MappingPhase::{ApprovedForRemoval, Live, Missing, Orphaned, RevocationDeferred, Terminating};
    use PhaseEvent::{
        Applied, ClaimsEnded, DeadlineExceeded, DeletionObserved, FoundMissing, OnlyOrphansLeft, RemovalApproved,
        UninstallRequested,
    };
    use proptest::prelude::*;

    use super::*;

    /// One row for each phase, one column for each event, in this order.
    const EVENTS: [PhaseEvent; 8] = [
        Applied,
        DeletionObserved(Revoke),
        FoundMissing(MappingMissing),
        RemovalApproved(Revoke),
        UninstallRequested(Orphan),
        DeadlineExceeded,
        OnlyOrphansLeft,
        ClaimsEnded,
    ];

    type Row = (Option<MappingPhase>, [(Option<MappingPhase>, &'static [PhaseEffect]); 8]);

    fn table() -> Vec<Row> {
        let live = (Some(Live), END);
        let deleted = (Some(Terminating(Revoke)), END);
        let missing = (Some(Missing(MappingMissing)), FREEZE);
        let approved = (Some(ApprovedForRemoval(Revoke)), END);
        let uninstalled = (Some(ApprovedForRemoval(Orphan)), END);
        let deferred = |claims| (Some(RevocationDeferred(claims)), DEFER);
        let orphaned = (Some(Orphaned), REPORT);
        let forgotten = (None, FORGET);
        let stays = |phase| (phase, NOTHING);
        let mut table = vec![(None, {
            let nothing = stays(None);
            [live, deleted, missing, approved, uninstalled, nothing, nothing, nothing]
        })];
        let mut row =
            |phase, next: [(Option<MappingPhase>, &'static [PhaseEffect]); 8]| table.push((Some(phase), next));
        let s = stays(Some(Live));
        row(Live, [live, deleted, missing, s, uninstalled, s, s, s]);
        let (s, again) = (stays(Some(Missing(ManifestsMissing))), (Some(Missing(MappingMissing)), REPORT));
        row(Missing(ManifestsMissing), [live, deleted, again, approved, uninstalled, s, s, s]);
        let s = stays(Some(Terminating(Revoke)));
        row(Terminating(Revoke), [live, deleted, s, s, uninstalled, deferred(Revoke), s, forgotten]);
        let s = stays(Some(Terminating(Orphan)));
        row(Terminating(Orphan), [live, deleted, s, s, uninstalled, deferred(Orphan), orphaned, forgotten]);
        let s = stays(Some(ApprovedForRemoval(Revoke)));
        row(ApprovedForRemoval(Revoke), [live, deleted, s, s, uninstalled, deferred(Revoke), s, forgotten]);
        let s = stays(Some(ApprovedForRemoval(Orphan)));
        row(ApprovedForRemoval(Orphan), [live, deleted, s, s, uninstalled, deferred(Orphan), orphaned, forgotten]);
        let (owes, left) = ((Some(RevocationDeferred(Revoke)), END), (Some(RevocationDeferred(Orphan)), END));
        let s = stays(Some(RevocationDeferred(Revoke)));
        row(RevocationDeferred(Revoke), [live, owes, s, s, left, s, s, forgotten]);
        let s = stays(Some(RevocationDeferred(Orphan)));
        row(RevocationDeferred(Orphan), [live, owes, s, s, left, s, orphaned, forgotten]);
        let s = stays(Some(Orphaned));
        row(Orphaned, [live, deleted, s, s, uninstalled, s, s, forgotten]);
        table
    }

    #[test]
    fn each_transition_is_the_one_in_the_table() {
        for (phase, row) in table() {
            for (event, (next, effects)) in EVENTS.into_iter().zip(row) {
                let transition = MappingPhase::after(phase, event);
                assert_eq!(transition, Transition { next, effects }, "{phase:?} on {event:?}");
            }
        }
    }

    fn disposal() -> impl Strategy<Value = ClaimDisposal> {
        prop_oneof![Just(Revoke), Just(Orphan)]
    }

    fn why() -> impl Strategy<Value = FreezeReason> {
        prop_oneof![Just(MappingMissing), Just(ManifestsMissing)]
    }

    fn event() -> impl Strategy<Value = PhaseEvent> {
        prop_oneof![
            Just(Applied),
            disposal().prop_map(DeletionObserved),
            why().prop_map(FoundMissing),
            disposal().prop_map(RemovalApproved),
            disposal().prop_map(UninstallRequested),
            Just(DeadlineExceeded),
            Just(OnlyOrphansLeft),
            Just(ClaimsEnded),
        ]
    }

    proptest! {
        #[test]
        fn only_an_object_that_is_there_brings_a_mapping_into_force_and_absence_never_ends_a_claim(
            events in prop::collection::vec(event(), 1..40)
        ) {
            let mut phase = None;
            for event in events {
                let Transition { next, effects } = MappingPhase::after(phase, event);
                let ends = |phase: Option<MappingPhase>| phase.is_some_and(MappingPhase::is_terminating);
                if next == Some(Live) && phase != Some(Live) {
                    prop_assert_eq!(event, Applied);
                }
                if ends(next) && !ends(phase) {
                    let decided = matches!(event, DeletionObserved(_) | RemovalApproved(_) | UninstallRequested(_));
                    prop_assert!(decided, "{:?} on {:?}", phase, event);
                }
                if phase.is_some() && next.is_none() {
                    prop_assert!(ends(phase) && event == ClaimsEnded);
                }
                if next != phase && next.is_some() && event != DeadlineExceeded && event != OnlyOrphansLeft {
                    let only_why = matches!((phase, next), (Some(Missing(_)), Some(Missing(_))));
                    prop_assert!(only_why || effects.first() == Some(&PhaseEffect::Persist), "durable first");
                }
                if next == phase && effects.is_empty() {
                    prop_assert_eq!(MappingPhase::after(next, event), Transition { next, effects });
                }
                phase = next;
            }
        }
    }
}
