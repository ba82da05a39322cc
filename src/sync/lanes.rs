//! Which document is worked on when: a lane for removals and one for additions, in regions that share a quota.
//!
//! Each document has a due time in either lane, and a back-off in either: due = max(asked, not before, the region's back-off
//! of that lane). A turn serves both lanes unless the additions have to wait. Pure: time is handed in.
//!
//! Of one region, only so many documents are worked on at once. One whose calls hang leaves its place to others after a
//! short time, and is not given one of those places again as long as it hangs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::throttle::Throttle;
use crate::model::{DocumentKey, Region};

/// What a turn is for.
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

/// After this time an addition that waits goes before removals that come later.
const AGE: Duration = Duration::from_mins(1);

/// How many documents of one region are worked on at once: they share commits, and are more than its read quota allows for.
const PER_REGION: usize = 8;

/// How many of all regions.
const IN_ALL: usize = 16;

/// How many turns begin at once after a time with nothing to do: what they share is time to compute, and the first write
/// after a quiet time is the one that somebody waits for. Each turn that ends lets one more run beside the others.
const FIRST: usize = 2;

/// How many documents of one region may hang beside those that are worked on. Each has one open call.
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
    /// It hung the last time.
    hangs: bool,
}

#[derive(Debug, Default)]
struct RegionState {
    /// What waits, by due time: by lane, and whether it hung the last time.
    order: [[BTreeSet<(Instant, DocumentKey)>; 2]; 2],
    prompt: usize,
    hanging: usize,
    reads: Throttle,
    writes: Throttle,
}

impl RegionState {
    /// When turns of this lane may begin as far as the quota goes.
    fn opens(&self, lane: Lane) -> Option<Instant> {
        self.reads.opens(lane).max(self.writes.opens(lane))
    }

    fn width(&self, now: Instant) -> usize {
        self.reads.width(now).min(self.writes.width(now)).min(PER_REGION)
    }
}

/// How one turn ended, for one lane.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct After {
    /// No turn of this lane before this.
    pub not_before: Option<Instant>,
    /// The next turn is wanted then.
    pub ask: Option<Instant>,
}

/// What is waiting, and what is being worked on.
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
    /// Asks for a turn at `at`; an earlier request that waits already stays as early as it is.
    pub fn enqueue(&mut self, key: &DocumentKey, lane: Lane, at: Instant) {
        self.change(key, |entry| {
            let slot = &mut entry.slots[lane as usize];
            slot.asked = Some(slot.asked.map_or(at, |asked| asked.min(at)));
        });
    }

    /// Changes an entry and keeps the order in step with it.
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

    /// The first of each region and lane for which there is room, with the time when it is due: its own, and that of the
    /// region's quota.
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

    /// Takes the document that is next, if one is due; its turn lasts until [`Lanes::done`]. A turn serves the other lane,
    /// too, if that is due.
    pub fn pop(&mut self, now: Instant) -> Option<(DocumentKey, Lane)> {
        let aged = |due: Instant, lane: Lane| if lane == Lane::Addition { due + AGE } else { due };
        let (lane, key) = self
            .candidates(now)
            .filter(|(due, ..)| *due <= now)
            .min_by(|one, other| (aged(one.0, one.1), one.2).cmp(&(aged(other.0, other.1), other.2)))
            .map(|(_, lane, key)| (lane, key.clone()))?;
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

    /// The turn of `key` waits for an answer that does not come: it leaves its place to others. Answers whether it did.
    pub fn hangs(&mut self, key: &DocumentKey) -> bool {
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

    /// Ends the turn of `key`. `hung`: it got no answer. `after`: for either lane.
    pub fn complete(&mut self, key: &DocumentKey, hung: bool, after: [After; 2]) {
        let Some(turn) = self.entries.get(key).and_then(|entry| entry.turn) else { return };
        let state = self.regions.entry(key.region()).or_default();
        match turn {
            Turn::Prompt => {
                state.prompt = state.prompt.saturating_sub(1);
                self.prompt = self.prompt.saturating_sub(1);
            }
            Turn::Hanging => state.hanging = state.hanging.saturating_sub(1),
        }
        self.limit = if self.prompt == 0 { FIRST } else { (self.limit + 1).min(IN_ALL) };
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

    /// The back-off of a lane of a document, for a turn that did not concern it.
    pub fn not_before(&self, key: &DocumentKey, lane: Lane) -> Option<Instant> {
        self.entries.get(key)?.slots[lane as usize].not_before
    }

    /// Google refused a read or write of this region for its quota.
    pub fn throttled(&mut self, region: &Region, write: bool, answer: Throttled) {
        let state = self.regions.entry(region.clone()).or_default();
        if write { state.writes.throttled(&answer) } else { state.reads.throttled(&answer) }
    }

    /// Google did a read or write of this region that began at `begun`.
    pub fn answered(&mut self, region: &Region, write: bool, begun: Instant) {
        if let Some(state) = self.regions.get_mut(region) {
            if write { state.writes.answered(begun) } else { state.reads.answered(begun) }
        }
    }

    /// When a write of removals or of additions may be sent in a region; none: now.
    pub fn write_opens(&self, region: &Region, lane: Lane, now: Instant) -> Option<Instant> {
        self.regions.get(region)?.writes.opens(lane).filter(|opens| *opens > now)
    }

    /// When reads outside of a turn may be sent in a region; none: now.
    pub fn reads_open(&self, region: &Region, now: Instant) -> Option<Instant> {
        self.regions.get(region)?.reads.opens(Lane::Addition).filter(|opens| *opens > now)
    }

    /// True when neither the additions of this document nor those of its region are in a back-off.
    pub fn additions_open(&self, key: &DocumentKey, now: Instant) -> bool {
        let own = self.not_before(key, Lane::Addition).is_none_or(|bound| bound <= now);
        own && self.write_opens(&key.region(), Lane::Addition, now).is_none()
    }

    /// When the next turn can begin as far as time decides; none when nothing waits, or nothing has room.
    pub fn next_due(&self, now: Instant) -> Option<Instant> {
        self.candidates(now).map(|(due, ..)| due).min()
    }

    /// How many documents wait for a turn.
    pub fn waiting(&self) -> usize {
        let waits = |entry: &&Entry| entry.turn.is_none() && entry.slots.iter().any(|slot| slot.asked.is_some());
        self.entries.values().filter(waits).count()
    }

    /// True when `key` waits for a turn or has one now.
    pub fn is_busy(&self, key: &DocumentKey) -> bool {
        let busy = |entry: &Entry| entry.turn.is_some() || entry.slots.iter().any(|slot| slot.asked.is_some());
        self.entries.get(key).is_some_and(busy)
    }
}

/// A refusal for the quota.
#[derive(Debug, Clone, Copy)]
pub(super) struct Throttled {
    /// When the call began.
    pub begun: Instant,
    /// When the refusal came.
    pub now: Instant,
    /// How long Google asks to wait.
    pub retry_after: Option<Duration>,
    /// From 0 to 1.
    pub random: f64,
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
