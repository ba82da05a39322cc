//! Schedules the reconciles of documents: a lane for removals and one for additions, in regions that share a quota.
//!
//! Each document has a due time and a backoff in either lane: due = max(enqueued, not before, the region's pace). An
//! attempt that is likely to write starts when its region may be written to, and has that write reserved; one that
//! only looks at a document waits for reads alone. Removals come first, and namespaces take turns. An attempt serves
//! both lanes unless the additions have to wait. Pure: time is passed in.
//!
//! The number of concurrent attempts per region is limited. A document whose calls hang gives up its slot after a short
//! time, and gets none of these slots again as long as it hangs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::fair::{FairOrder, Share};
use super::pacer::{Call, Pacer, Throttled};
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

/// What an attempt is likely to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    /// Read the document, to see whether it still is as it should be.
    Look = 0,
    /// Write it.
    Write = 1,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::Look, Self::Write];
}

/// Age after which a waiting addition has guaranteed turns.
const AGE: Duration = Duration::from_mins(1);

/// One turn after so many of removals is guaranteed to additions that have waited long.
const TURNS: u32 = 4;

/// The same while the quota is spent, when a turn takes about a second.
const TURNS_LIMITED: u32 = 100;

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
    /// True when a write was asked for.
    writes: bool,
}

impl Slot {
    fn purpose(&self) -> Purpose {
        if self.writes { Purpose::Write } else { Purpose::Look }
    }

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
    /// The namespaces that it waits for; empty: none is known.
    shares: Arc<[Share]>,
    /// True while a read, or a write, is reserved for the attempt.
    reserved: [bool; 2],
}

impl Entry {
    fn shares(&self) -> Arc<[Share]> {
        if self.shares.is_empty() { Arc::new([Share::from("")]) } else { self.shares.clone() }
    }
}

#[derive(Debug)]
struct RegionState {
    /// Waiting documents by due time: by lane, by purpose, and by whether the last attempt hung.
    order: [[[FairOrder; 2]; 2]; 2],
    prompt: usize,
    hanging: usize,
    reads: Pacer,
    writes: Pacer,
    /// Turns of removals since the last one of additions.
    removals: u32,
}

impl Default for RegionState {
    fn default() -> Self {
        let (reads, writes) = (Pacer::new(Call::Read), Pacer::new(Call::Write));
        Self { order: Default::default(), prompt: 0, hanging: 0, reads, writes, removals: 0 }
    }
}

impl RegionState {
    /// Time at which attempts of this lane and purpose may start according to the quota.
    fn opens(&self, lane: Lane, purpose: Purpose, now: Instant) -> Option<Instant> {
        let reads = self.reads.opens(lane, now);
        match purpose {
            Purpose::Look => reads,
            Purpose::Write => reads.max(self.writes.opens(lane, now)),
        }
    }

    fn calls(&mut self, call: Call) -> &mut Pacer {
        match call {
            Call::Read => &mut self.reads,
            Call::Write => &mut self.writes,
        }
    }

    /// True when another attempt with this purpose may start.
    fn has_room(&self, purpose: Purpose, now: Instant) -> bool {
        let writes = || self.writes.has_room(now) || !self.writes.is_limited(now);
        self.reads.has_room(now) && (purpose == Purpose::Look || writes())
    }

    /// True when the next turn is guaranteed to an addition.
    fn is_turn_of_additions(&self, now: Instant) -> bool {
        let turns = if self.writes.is_limited(now) { TURNS_LIMITED } else { TURNS };
        let aged = |order: &FairOrder| order.oldest().is_some_and(|due| due + AGE <= now);
        self.removals >= turns && self.order[Lane::Addition as usize].iter().flatten().any(aged)
    }

    /// True when a removal waits to be written.
    fn has_removals(&self, now: Instant) -> bool {
        let order = &self.order[Lane::Removal as usize][Purpose::Write as usize];
        order.iter().any(|order| order.oldest().is_some_and(|due| due <= now))
    }
}

/// Whether a write may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Now.
    Now,
    /// As soon as another one is answered.
    Soon,
    /// In a later attempt: the document has to be enqueued again.
    Later,
}

/// A document that may be next.
struct Candidate<'a> {
    due: Instant,
    lane: Lane,
    purpose: Purpose,
    key: &'a DocumentKey,
    share: &'a Share,
    /// Removals come before additions, except in turns that are guaranteed to additions.
    rank: u8,
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
    pub(crate) fn enqueue(&mut self, key: &DocumentKey, lane: Lane, purpose: Purpose, at: Instant) {
        self.change(key, |entry| {
            let slot = &mut entry.slots[lane as usize];
            slot.asked = Some(slot.asked.map_or(at, |asked| asked.min(at)));
            slot.writes |= purpose == Purpose::Write;
        });
    }

    /// Sets the namespaces that a waiting or running document counts for.
    pub(crate) fn share(&mut self, key: &DocumentKey, shares: Vec<Share>) {
        if self.entries.get(key).is_some_and(|entry| *entry.shares != *shares) {
            self.change(key, |entry| entry.shares = shares.into());
        }
    }

    /// Changes an entry and updates the order.
    fn change(&mut self, key: &DocumentKey, change: impl FnOnce(&mut Entry)) {
        let state = self.regions.entry(key.region()).or_default();
        let entry = self.entries.entry(key.clone()).or_default();
        let places = |entry: &Entry| {
            let slot = |lane: Lane| {
                let slot = &entry.slots[lane as usize];
                slot.due().filter(|_| entry.turn.is_none()).map(|due| (due, slot.purpose()))
            };
            (Lane::ALL.map(slot), usize::from(entry.hangs), entry.shares())
        };
        let (before, hung, left) = places(entry);
        change(entry);
        let (after, hangs, shares) = places(entry);
        for lane in Lane::ALL {
            let (old, new) = (before[lane as usize], after[lane as usize]);
            if old == new && hung == hangs && left == shares {
                continue;
            }
            let order = &mut state.order[lane as usize];
            if let Some((due, purpose)) = old {
                order[purpose as usize][hung].remove(&left, due, key);
            }
            if let Some((due, purpose)) = new {
                order[purpose as usize][hangs].insert(&shares, due, key);
            }
        }
    }

    /// The first document of each region, lane and purpose with a free slot, with the time at which it is due: its own,
    /// and that of the region's quota.
    fn candidates(&self, now: Instant) -> impl Iterator<Item = Candidate<'_>> {
        self.regions.values().flat_map(move |state| {
            let turn = state.is_turn_of_additions(now);
            let of = move |lane: Lane, purpose: Purpose, hangs: bool| {
                let room =
                    if hangs { state.hanging < HANGING } else { self.prompt < self.limit && state.prompt < PER_REGION };
                if !room || !state.has_room(purpose, now) {
                    return None;
                }
                let (due, key, share) = state.order[lane as usize][purpose as usize][usize::from(hangs)].first(now)?;
                let due = state.opens(lane, purpose, now).map_or(due, |opens| opens.max(due));
                let rank = match lane {
                    Lane::Addition if turn => 0,
                    Lane::Removal => 1,
                    Lane::Addition => 2,
                };
                Some(Candidate { due, lane, purpose, key, share, rank })
            };
            let all = Lane::ALL.into_iter().flat_map(|lane| Purpose::ALL.map(|purpose| (lane, purpose)));
            all.flat_map(move |(lane, purpose)| [of(lane, purpose, false), of(lane, purpose, true)]).flatten()
        })
    }

    /// Starts the attempt of the next document, if one is due; it lasts until [`Lanes::complete`]. An attempt serves
    /// the other lane too, if that is due.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(DocumentKey, Lane)> {
        let next = self
            .candidates(now)
            .filter(|next| next.due <= now)
            .min_by_key(|next| (next.rank, next.due, next.key))
            .map(|next| (next.lane, next.purpose, next.key.clone(), next.share.clone()));
        let Some((lane, purpose, key, share)) = next else {
            if self.prompt < self.limit {
                // Nothing is due: whatever comes next starts after a quiet time, also while others are still ending.
                self.limit = self.prompt + FIRST;
            }
            return None;
        };
        let (region, hangs) = (key.region(), self.entries.get(&key).is_some_and(|entry| entry.hangs));
        let state = self.regions.entry(region.clone()).or_default();
        state.order[lane as usize][purpose as usize][usize::from(hangs)].serve(&share);
        let writes = purpose == Purpose::Write && state.writes.is_limited(now);
        state.reads.begin(now);
        if writes {
            state.writes.begin(now);
        }
        state.removals = if lane == Lane::Removal { state.removals.saturating_add(1) } else { 0 };
        if hangs {
            state.hanging += 1;
        } else {
            state.prompt += 1;
            self.prompt += 1;
        }
        self.change(&key, |entry| {
            for (slot, of) in entry.slots.iter_mut().zip(Lane::ALL) {
                if of == lane || slot.due().is_some_and(|due| due <= now) {
                    (slot.asked, slot.writes) = (None, false);
                }
            }
            entry.turn = Some(if hangs { Turn::Hanging } else { Turn::Prompt });
            entry.reserved = [true, writes];
        });
        Some((key, lane))
    }

    /// Begins a read of the attempt at `key`.
    pub(crate) fn begin_read(&mut self, key: &DocumentKey, now: Instant) {
        let reserved = self.entries.get_mut(key).is_some_and(|entry| std::mem::take(&mut entry.reserved[0]));
        if !reserved {
            self.regions.entry(key.region()).or_default().reads.begin(now);
        }
    }

    /// Reserves a write for the attempt at `key`, if it may be sent.
    pub(crate) fn admit_write(&mut self, key: &DocumentKey, lane: Lane, now: Instant) -> Admission {
        let Some(entry) = self.entries.get_mut(key) else { return Admission::Later };
        if entry.reserved[1] {
            return Admission::Now;
        }
        let state = self.regions.entry(key.region()).or_default();
        if state.writes.is_limited(now) {
            let yields = lane == Lane::Addition && state.has_removals(now);
            if yields || state.writes.opens(lane, now).is_some() || !state.writes.has_room(now) {
                return Admission::Later;
            }
        } else if !state.writes.has_room(now) {
            return Admission::Soon;
        }
        state.writes.begin(now);
        entry.reserved[1] = true;
        Admission::Now
    }

    /// Begins the write that is reserved for the attempt at `key`.
    pub(crate) fn begin_write(&mut self, key: &DocumentKey, now: Instant) {
        let reserved = self.entries.get_mut(key).is_some_and(|entry| std::mem::take(&mut entry.reserved[1]));
        if !reserved {
            self.regions.entry(key.region()).or_default().writes.begin(now);
        }
    }

    /// Records that a read or write of this region is not under way any more.
    pub(crate) fn end_call(&mut self, region: &Region, call: Call) {
        if let Some(state) = self.regions.get_mut(region) {
            state.calls(call).end();
        }
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
    pub(crate) fn complete(&mut self, key: &DocumentKey, hung: bool, after: [After; 2], now: Instant) {
        let Some((turn, reserved)) = self.entries.get(key).and_then(|entry| Some((entry.turn?, entry.reserved))) else {
            return;
        };
        let state = self.regions.entry(key.region()).or_default();
        for (call, reserved) in [Call::Read, Call::Write].into_iter().zip(reserved) {
            if reserved {
                state.calls(call).give_back(now);
            }
        }
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
            entry.reserved = [false; 2];
            for (slot, after) in entry.slots.iter_mut().zip(after) {
                slot.not_before = after.not_before;
                slot.asked = [slot.asked, after.ask].into_iter().flatten().min();
                slot.writes |= after.ask.is_some();
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

    /// Records that Google refused a call of this region because of its quota. Returns the calls per minute that are
    /// sent from now on, when no limit was known before.
    pub(crate) fn throttled(&mut self, region: &Region, call: Call, answer: &Throttled) -> Option<f64> {
        let calls = self.regions.entry(region.clone()).or_default().calls(call);
        let known = calls.is_limited(answer.now);
        calls.throttled(answer);
        calls.per_minute(answer.now).filter(|_| !known)
    }

    /// Records that Google answered a call of this region that was sent at `begun`.
    pub(crate) fn answered(&mut self, region: &Region, call: Call, begun: Instant, now: Instant) {
        self.regions.entry(region.clone()).or_default().calls(call).answered(begun, now);
    }

    /// Time at which reads outside of an attempt may be sent in a region; none: now.
    pub(crate) fn reads_open(&self, region: &Region, now: Instant) -> Option<Instant> {
        self.regions.get(region)?.reads.opens(Lane::Addition, now)
    }

    /// True when the additions of this document are not in backoff.
    pub(crate) fn additions_open(&self, key: &DocumentKey, now: Instant) -> bool {
        self.not_before(key, Lane::Addition).is_none_or(|bound| bound <= now)
    }

    /// Time at which the next attempt can start; none when nothing waits, or no slot is free.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.candidates(now).map(|next| next.due).min()
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
                let slot = &entry.slots[lane as usize];
                let due = slot.due()?;
                let opens = state.and_then(|state| state.opens(lane, slot.purpose(), now));
                Some(opens.map_or(due, |opens| opens.max(due)))
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

    /// Number of regions whose reads and writes wait for a known quota, and number of documents that wait for it.
    pub(crate) fn paced(&self, now: Instant) -> ([usize; 2], usize) {
        let limited = |state: &RegionState| [state.reads.is_limited(now), state.writes.is_limited(now)];
        let mut regions = [0; 2];
        for state in self.regions.values() {
            let limited = limited(state);
            regions[0] += usize::from(limited[0]);
            regions[1] += usize::from(limited[1]);
        }
        if regions == [0; 2] {
            return (regions, 0);
        }
        let waits = |(key, entry): &(&DocumentKey, &Entry)| {
            let is_due = entry.slots.iter().any(|slot| slot.writes && slot.due().is_some_and(|due| due <= now));
            entry.turn.is_none()
                && is_due
                && self.regions.get(&key.region()).is_some_and(|state| state.writes.is_limited(now))
        };
        (regions, self.entries.iter().filter(waits).count())
    }

    /// True when `key` is waiting or running.
    pub(crate) fn is_busy(&self, key: &DocumentKey) -> bool {
        let busy = |entry: &Entry| entry.turn.is_some() || entry.slots.iter().any(|slot| slot.asked.is_some());
        self.entries.get(key).is_some_and(busy)
    }
}

#[cfg(test)]
#[path = "lanes_tests.rs"]
mod tests;
