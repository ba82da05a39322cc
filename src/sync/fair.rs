//! An order of documents by due time that is fair between namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;

use crate::model::DocumentKey;

/// A namespace whose mappings want something of a document. Documents that no mapping wants anything of have none.
pub(super) type Share = Arc<str>;

#[derive(Debug, Default)]
struct Waiting {
    documents: BTreeSet<(Instant, DocumentKey)>,
    /// Turns so far, counted from where the others were when the namespace began to wait.
    turns: u64,
}

/// Waiting documents. Namespaces with due documents take turns, so that many documents of one of them do not delay the
/// few of another. A document of several namespaces waits in each of them, and has its turn with the first.
#[derive(Debug, Default)]
pub(super) struct FairOrder {
    shares: BTreeMap<Share, Waiting>,
    /// Turns of the namespace that was served last, before that turn.
    turns: u64,
}

impl FairOrder {
    pub(crate) fn insert(&mut self, shares: &[Share], due: Instant, key: &DocumentKey) {
        for share in shares {
            let turns = self.turns;
            let waiting = self.shares.entry(share.clone()).or_insert_with(|| Waiting { turns, ..Waiting::default() });
            waiting.documents.insert((due, key.clone()));
        }
    }

    pub(crate) fn remove(&mut self, shares: &[Share], due: Instant, key: &DocumentKey) {
        let place = (due, key.clone());
        for share in shares {
            let Some(waiting) = self.shares.get_mut(share) else { continue };
            waiting.documents.remove(&place);
            if waiting.documents.is_empty() {
                self.shares.remove(share);
            }
        }
    }

    /// The next document: of those that are due, the first of the namespace with the fewest turns; if none is, the one
    /// that is due first.
    pub(crate) fn first(&self, now: Instant) -> Option<(Instant, &DocumentKey, &Share)> {
        let heads = self.shares.iter().filter_map(|(share, waiting)| {
            let (due, key) = waiting.documents.first()?;
            let turns = if *due <= now { waiting.turns } else { u64::MAX };
            Some((turns, *due, key, share))
        });
        heads.min().map(|(_, due, key, share)| (due, key, share))
    }

    /// The time since when a document has been due longest.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.shares.values().filter_map(|waiting| waiting.documents.first()).map(|(due, _)| *due).min()
    }

    /// Counts a turn of a namespace.
    pub(crate) fn serve(&mut self, share: &Share) {
        if let Some(waiting) = self.shares.get_mut(share) {
            self.turns = waiting.turns;
            waiting.turns += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn service(name: &str) -> DocumentKey {
        format!("run:projects/p/locations/l/services/{name}").parse().unwrap()
    }

    fn share(name: &str) -> [Share; 1] {
        [name.into()]
    }

    /// Takes the next document that is due.
    fn take(order: &mut FairOrder, now: Instant) -> Option<String> {
        let (due, key, of) = order.first(now).filter(|(due, ..)| *due <= now)?;
        let (key, of) = (key.clone(), of.clone());
        order.serve(&of);
        for name in ["many", "few", "late"] {
            order.remove(&share(name), due, &key);
        }
        Some(key.name().to_owned())
    }

    #[test]
    fn namespace_with_one_document_does_not_wait_for_the_thousand_of_another() {
        let (mut order, now) = (FairOrder::default(), Instant::now());
        for n in 0..1000 {
            order.insert(&share("many"), now, &service(&format!("a{n:04}")));
        }
        for _ in 0..100 {
            assert!(take(&mut order, now).is_some_and(|name| name.starts_with('a')));
        }
        order.insert(&share("few"), now + Duration::from_secs(1), &service("b"));
        order.insert(&share("late"), now + Duration::from_secs(5), &service("c"));
        assert_eq!(take(&mut order, now + Duration::from_secs(2)).as_deref(), Some("b"));
        assert!(take(&mut order, now + Duration::from_secs(2)).is_some_and(|name| name.starts_with('a')));
        assert_eq!(take(&mut order, now + Duration::from_secs(5)).as_deref(), Some("c"));
    }

    #[test]
    fn namespaces_take_turns_and_one_that_was_away_has_saved_none() {
        let (mut order, now) = (FairOrder::default(), Instant::now());
        for n in 0..8 {
            order.insert(&share("many"), now, &service(&format!("a{n}")));
        }
        for _ in 0..4 {
            take(&mut order, now);
        }
        for n in 0..4 {
            order.insert(&share("few"), now, &service(&format!("b{n}")));
        }
        let turns: Vec<String> = std::iter::from_fn(|| take(&mut order, now)).collect();
        assert_eq!(turns, ["b0", "a4", "b1", "a5", "b2", "a6", "b3", "a7"]);
    }

    #[test]
    fn document_of_two_namespaces_has_one_turn_with_the_first_of_them() {
        let (mut order, now) = (FairOrder::default(), Instant::now());
        order.insert(&share("many"), now, &service("a"));
        let both: [Share; 2] = ["many".into(), "few".into()];
        order.insert(&both, now, &service("z"));
        let turns: Vec<String> = std::iter::from_fn(|| take(&mut order, now)).collect();
        assert_eq!(turns, ["a", "z"]);
        assert_eq!(order.oldest(), None);
    }
}
