//! Schedules the reconciles of documents: a lane for removals and one for additions, in regions that share a quota.
//!
//! Each document has a due time and a backoff in either lane: due = max(enqueued, not before, the region's backoff of
//! that lane). An attempt serves both lanes unless the additions have to wait. Pure: time is passed in.
//!
//! The number of concurrent attempts per region is limited. A document whose calls hang gives up its slot after a short
//! time, and gets none of these slots again as long as it hangs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::throttle::Throttle;
use crate::model::{DocumentKey, Region};

/// The purpose of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Somebody may have to lose access.
    Removal = 0,
    /// Everything else.
    Addition = 1,
}

impl Lane {
    const ALL: [Self; 2] = [Self::Removal, Self::Addition];
}

/// Age after which a waiting addition takes precedence over later removals.
const AGE: Duration = Duration::from_mins(1);

/// Number of concurrent attempts in one region. They share commits, and exceed the region's read quota.
const PER_REGION: usize = 32;

/// Number of concurrent attempts in all regions.
const IN_ALL: usize = 64;

/// Number of attempts that start at once after an idle time. They share computing time, and the first write after a
/// quiet time is the one that somebody waits for.
const FIRST: usize = 2;

/// Number of further attempts that each ended attempt permits to run concurrently.
const MORE: usize = 2;

/// Number of documents of one region that may hang in addition to the concurrent attempts. Each has one open call.
const HANGING: usize = 128;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    asked: Option<Instant>,
    not_before: Option<Instant>,
}

impl Slot {
    fn due(&self) -> Option<Instant> {
        let asked = self.asked?;
        Some(self.not_before.map_or(asked, |bound| bound.max(asked)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Prompt,
    Hanging,
}

#[derive(Debug, Default)]
struct Entry {
    slots: [Slot; 2],
    turn: Option<Turn>,
    /// True when the last attempt hung.
    hangs: bool,
}

#[derive(Debug, Default)]
struct RegionState {
    /// Waiting documents by due time: by lane, and by whether the last attempt hung.
    order: [[BTreeSet<(Instant, DocumentKey)>; 2]; 2],
    prompt: usize,
    hanging: usize,
    reads: Throttle,
    writes: Throttle,
}

impl RegionState {
    /// Time at which attempts of this lane may start according to the quota.
    fn opens(&self, lane: Lane) -> Option<Instant> {
        self.reads.opens(lane).max(self.writes.opens(lane))
    }

    fn width(&self, now: Instant) -> usize {
        self.reads.width(now).min(self.writes.width(now)).min(PER_REGION)
    }
}

/// The result of an attempt for one lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct After {
    /// Earliest time of the next attempt.
    pub(crate) not_before: Option<Instant>,
    /// Time at which another attempt is wanted.
    pub(crate) ask: Option<Instant>,
}

/// The documents by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    pub(crate) running: usize,
    pub(crate) due: usize,
    pub(crate) waiting: usize,
    /// All of them.
    pub(crate) followed: Vec<DocumentKey>,
}

/// The waiting and the running documents.
#[derive(Debug)]
pub(super) struct Lanes {
    entries: HashMap<DocumentKey, Entry>,
    regions: BTreeMap<Region, RegionState>,
    prompt: usize,
    limit: usize,
}

impl Default for Lanes {
    fn default() -> Self {
        Self { entries: HashMap::new(), regions: BTreeMap::new(), prompt: 0, limit: FIRST }
    }
}

impl Lanes {
    /// Enqueues an attempt at `at`; an earlier request that is already waiting keeps its time.
    pub(crate) fn enqueue(&mut self, key: &DocumentKey, lane: Lane, at: Instant) {
        self.change(key, |entry| {
            let slot = &mut entry.slots[lane as usize];
            slot.asked = Some(slot.asked.map_or(at, |asked| asked.min(at)));
        });
    }

    /// Changes an entry and updates the order.
    fn change(&mut self, key: &DocumentKey, change: impl FnOnce(&mut Entry)) {
        let state = self.regions.entry(key.region()).or_default();
        let entry = self.entries.entry(key.clone()).or_default();
        let places = |entry: &Entry| {
            let due = |lane: Lane| entry.slots[lane as usize].due().filter(|_| entry.turn.is_none());
            (Lane::ALL.map(due), usize::from(entry.hangs))
        };
        let (before, hung) = places(entry);
        change(entry);
        let (after, hangs) = places(entry);
        for lane in Lane::ALL {
            let (old, new) = (before[lane as usize], after[lane as usize]);
            if old == new && hung == hangs {
                continue;
            }
            let order = &mut state.order[lane as usize];
            if let Some(due) = old {
                order[hung].remove(&(due, key.clone()));
            }
            if let Some(due) = new {
                order[hangs].insert((due, key.clone()));
            }
        }
    }

    /// The first document of each region and lane with a free slot, with the time at which it is due: its own, and that
    /// of the region's quota.
    fn candidates(&self, now: Instant) -> impl Iterator<Item = (Instant, Lane, &DocumentKey)> {
        self.regions.values().flat_map(move |state| {
            let of = move |lane: Lane, hangs: bool| {
                let room = if hangs {
                    state.hanging < HANGING
                } else {
                    self.prompt < self.limit && state.prompt < state.width(now)
                };
                let (due, key) = state.order[lane as usize][usize::from(hangs)].first().filter(|_| room)?;
                Some((state.opens(lane).map_or(*due, |opens| opens.max(*due)), lane, key))
            };
            Lane::ALL.into_iter().flat_map(move |lane| [of(lane, false), of(lane, true)]).flatten()
        })
    }

    /// Starts the attempt of the next document, if one is due; it lasts until [`Lanes::complete`]. An attempt serves
    /// the other lane too, if that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(DocumentKey, Lane)> {
        let aged = |due: Instant, lane: Lane| if lane == Lane::Addition { due + AGE } else { due };
        let next = self
            .candidates(now)
            .filter(|(due, ..)| *due <= now)
            .min_by(|one, other| (aged(one.0, one.1), one.2).cmp(&(aged(other.0, other.1), other.2)))
            .map(|(_, lane, key)| (lane, key.clone()));
        let Some((lane, key)) = next else {
            if self.prompt < self.limit {
                // Nothing is due: whatever comes next starts after a quiet time, also while others are still ending.
                self.limit = self.prompt + FIRST;
            }
            return None;
        };
        let mut hangs = false;
        self.change(&key, |entry| {
            for (slot, of) in entry.slots.iter_mut().zip(Lane::ALL) {
                if of == lane || slot.due().is_some_and(|due| due <= now) {
                    slot.asked = None;
                }
            }
            hangs = entry.hangs;
            entry.turn = Some(if hangs { Turn::Hanging } else { Turn::Prompt });
        });
        let state = self.regions.entry(key.region()).or_default();
        if hangs {
            state.hanging += 1;
        } else {
            state.prompt += 1;
            self.prompt += 1;
        }
        Some((key, lane))
    }

    /// Records that the attempt of `key` waits for an answer that does not arrive: it gives up its slot. Returns
    /// whether it did.
    pub(crate) fn hangs(&mut self, key: &DocumentKey) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.turn == Some(Turn::Prompt)) else {
            return false;
        };
        let state = self.regions.entry(key.region()).or_default();
        if state.hanging >= HANGING {
            return false;
        }
        entry.turn = Some(Turn::Hanging);
        state.hanging += 1;
        state.prompt = state.prompt.saturating_sub(1);
        self.prompt = self.prompt.saturating_sub(1);
        self.limit = IN_ALL;
        true
    }

    /// Ends the attempt of `key`. `hung`: it got no answer. `after`: the result for either lane.
    pub(crate) fn complete(&mut self, key: &DocumentKey, hung: bool, after: [After; 2]) {
        let Some(turn) = self.entries.get(key).and_then(|entry| entry.turn) else { return };
        let state = self.regions.entry(key.region()).or_default();
        match turn {
            Turn::Prompt => {
                state.prompt = state.prompt.saturating_sub(1);
                self.prompt = self.prompt.saturating_sub(1);
            }
            Turn::Hanging => state.hanging = state.hanging.saturating_sub(1),
        }
        self.limit = if self.prompt == 0 { FIRST } else { (self.limit + MORE).min(IN_ALL) };
        self.change(key, |entry| {
            entry.turn = None;
            entry.hangs = hung;
            for (slot, after) in entry.slots.iter_mut().zip(after) {
                slot.not_before = after.not_before;
                slot.asked = [slot.asked, after.ask].into_iter().flatten().min();
            }
        });
        let idle =
            |entry: &Entry| !entry.hangs && entry.slots.iter().all(|slot| slot.asked.or(slot.not_before).is_none());
        if self.entries.get(key).is_some_and(idle) {
            self.entries.remove(key);
        }
    }

    /// The backoff of a lane of a document, for an attempt that did not concern it.
    pub(crate) fn not_before(&self, key: &DocumentKey, lane: Lane) -> Option<Instant> {
        self.entries.get(key)?.slots[lane as usize].not_before
    }

    /// Records that Google throttled a read or write of this region.
    pub(crate) fn throttled(&mut self, region: &Region, write: bool, answer: Throttled) {
        let state = self.regions.entry(region.clone()).or_default();
        if write { state.writes.throttled(&answer) } else { state.reads.throttled(&answer) }
    }

    /// Records that Google answered a read or write of this region that was sent at `begun`.
    pub(crate) fn answered(&mut self, region: &Region, write: bool, begun: Instant) {
        if let Some(state) = self.regions.get_mut(region) {
            if write { state.writes.answered(begun) } else { state.reads.answered(begun) }
        }
    }

    /// Time at which a write of removals or of additions may be sent in a region; none: now.
    pub(crate) fn write_opens(&self, region: &Region, lane: Lane, now: Instant) -> Option<Instant> {
        self.regions.get(region)?.writes.opens(lane).filter(|opens| *opens > now)
    }

    /// Time at which reads outside of an attempt may be sent in a region; none: now.
    pub(crate) fn reads_open(&self, region: &Region, now: Instant) -> Option<Instant> {
        self.regions.get(region)?.reads.opens(Lane::Addition).filter(|opens| *opens > now)
    }

    /// True when neither the additions of this document nor those of its region are in backoff.
    pub(crate) fn additions_open(&self, key: &DocumentKey, now: Instant) -> bool {
        let own = self.not_before(key, Lane::Addition).is_none_or(|bound| bound <= now);
        own && self.write_opens(&key.region(), Lane::Addition, now).is_none()
    }

    /// Time at which the next attempt can start; none when nothing waits, or no slot is free.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.candidates(now).map(|(due, ..)| due).min()
    }

    /// Number of waiting documents.
    pub(crate) fn waiting(&self) -> usize {
        let waits = |entry: &&Entry| entry.turn.is_none() && entry.slots.iter().any(|slot| slot.asked.is_some());
        self.entries.values().filter(waits).count()
    }

    /// The state of all documents. `changing`: those with a change that is not carried out, which count as due from the
    /// time at which they are due before `soon`.
    pub(crate) fn schedule(&self, now: Instant, soon: Instant, changing: &BTreeSet<DocumentKey>) -> Schedule {
        let mut schedule = Schedule::default();
        for (key, entry) in &self.entries {
            let state = self.regions.get(&key.region());
            let due = |lane: Lane| {
                let due = entry.slots[lane as usize].due()?;
                Some(state.and_then(|state| state.opens(lane)).map_or(due, |opens| opens.max(due)))
            };
            let next = Lane::ALL.into_iter().filter_map(due).min();
            let until = if changing.contains(key) { soon } else { now };
            match next {
                _ if entry.turn.is_some() => schedule.running += 1,
                Some(due) if due <= until => schedule.due += 1,
                Some(_) => schedule.waiting += 1,
                None => continue,
            }
            schedule.followed.push(key.clone());
        }
        schedule
    }

    /// A document that is being worked on, or is due.
    #[cfg(test)]
    pub(crate) fn busy(&self, now: Instant) -> Option<&DocumentKey> {
        let is_busy = |entry: &Entry| {
            entry.turn.is_some() || entry.slots.iter().any(|slot| slot.due().is_some_and(|due| due <= now))
        };
        self.entries.iter().filter(|(_, entry)| is_busy(entry)).map(|(key, _)| key).min()
    }

    /// True when `key` is waiting or running.
    pub(crate) fn is_busy(&self, key: &DocumentKey) -> bool {
        let busy = |entry: &Entry| entry.turn.is_some() || entry.slots.iter().any(|slot| slot.asked.is_some());
        self.entries.get(key).is_some_and(busy)
    }
}

/// A refusal because of the quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throttled {
    /// Time at which the call was sent.
    pub(crate) begun: Instant,
    /// Time of the refusal.
    pub(crate) now: Instant,
    /// The delay that Google asks for.
    pub(crate) retry_after: Option<Duration>,
    /// A random number from 0 to 1.
    pub(crate) random: f64,
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
