//! The open connections of a listener, and the choice of the one to close when another arrives at a limit.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::track::{Track, Waits};

/// A request that has been arriving for less than this is never closed for another connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// Limits on the number of connections.
#[derive(Debug, Clone, Copy)]
pub(in crate::app) struct Room {
    /// Of all peers together.
    pub(crate) total: usize,
    /// Of those without an accepted token; the rest is reserved for the others.
    pub(crate) unproven: usize,
    /// Of one peer: an IPv4 address, or the first half of an IPv6 address.
    pub(crate) per_peer: usize,
}

/// Why the server closed a connection, as a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// The limit of its peer was reached, and each of the peer's connections was busy.
    PeerLimit,
    /// The limit was reached, and every connection was busy.
    Limit,
    /// It waited for its client when another connection arrived at the limit.
    Displaced,
    /// The head of a request took too long.
    HeadTimeout,
    /// No bytes arrived for too long.
    IdleTimeout,
    /// The client does not read the answer, or too slowly.
    WriteTimeout,
}

impl Closed {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::PeerLimit => "PeerLimit",
            Self::Limit => "Limit",
            Self::Displaced => "Displaced",
            Self::HeadTimeout => "HeadTimeout",
            Self::IdleTimeout => "IdleTimeout",
            Self::WriteTimeout => "WriteTimeout",
        }
    }
}

/// The address by which connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Peer(IpAddr);

impl Peer {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                // Whoever has one IPv6 address usually has the other 2^64 of its network, too.
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

struct Entry {
    peer: Peer,
    track: Arc<Track>,
    close: CancellationToken,
}

#[derive(Default)]
struct Table {
    next: u64,
    entries: BTreeMap<u64, Entry>,
    per_peer: HashMap<Peer, usize>,
}

/// All connections of one listener.
#[derive(Clone)]
pub(super) struct Connections {
    room: Room,
    table: Arc<Mutex<Table>>,
}

/// An admitted connection, counted until this is dropped.
pub(super) struct Place {
    id: u64,
    table: Arc<Mutex<Table>>,
    pub(super) track: Arc<Track>,
    /// Canceled when the connection has to make way for another.
    pub(super) close: CancellationToken,
}

/// The result of admitting a connection: its place, and whether another was closed for it.
pub(super) struct Admitted {
    pub(super) place: Result<Place, Closed>,
    pub(super) displaced: bool,
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn count(&self, peer: Peer) -> usize {
        self.per_peer.get(&peer).copied().unwrap_or(0)
    }

    fn remove(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(count) = self.per_peer.get_mut(&entry.peer) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&entry.peer);
            }
        }
        Some(entry)
    }

    /// Closes the least needed connection among those that wait for their client: first those without an accepted
    /// token, then idle ones, then those whose request does not arrive or whose answer is not read. Among equals, one
    /// of the peer with the most connections is chosen, and of those the one that has waited longest. A connection with
    /// a request in progress is never closed.
    fn displace(&mut self, of: Option<Peer>, unproven_only: bool, now: Instant) -> bool {
        let candidates = self.entries.iter().filter(|(_, entry)| of.is_none_or(|peer| entry.peer == peer));
        let ranked = candidates.filter_map(|(id, entry)| {
            let (waits, since) = entry.track.waits()?;
            let rank = match (entry.track.is_authenticated(), waits) {
                (false, _) => 0,
                _ if unproven_only => return None,
                (true, Waits::ForNextRequest) => 1,
                (true, Waits::InsideRequest) if now.saturating_duration_since(since) > PATIENCE => 2,
                (true, Waits::InsideRequest) => return None,
            };
            Some((rank, std::cmp::Reverse(self.count(entry.peer)), since, *id))
        });
        let Some((.., id)) = ranked.min() else { return false };
        if let Some(entry) = self.remove(id) {
            entry.close.cancel();
        }
        true
    }

    fn unproven(&self) -> usize {
        self.entries.values().filter(|entry| !entry.track.is_authenticated()).count()
    }
}

impl Connections {
    pub(super) fn new(room: Room) -> Self {
        Self { room, table: Arc::default() }
    }

    /// Admits an accepted connection, if necessary in place of another.
    pub(super) fn admit(&self, address: IpAddr, now: Instant) -> Admitted {
        let peer = Peer::of(address);
        let mut table = lock(&self.table);
        let mut displaced = false;
        if table.count(peer) >= self.room.per_peer {
            displaced = table.displace(Some(peer), false, now);
            if !displaced {
                return Admitted { place: Err(Closed::PeerLimit), displaced };
            }
        }
        // A new connection has not shown a token yet. Counting walks the table, and is only needed when it is nearly
        // full.
        let unproven_full = table.entries.len() >= self.room.unproven && table.unproven() >= self.room.unproven;
        if unproven_full || table.entries.len() >= self.room.total {
            let made_room = table.displace(None, unproven_full, now);
            displaced |= made_room;
            if !made_room {
                return Admitted { place: Err(Closed::Limit), displaced };
            }
        }
        let id = table.next;
        table.next += 1;
        let (track, close) = (Arc::new(Track::new(address, now)), CancellationToken::new());
        table.entries.insert(id, Entry { peer, track: track.clone(), close: close.clone() });
        *table.per_peer.entry(peer).or_default() += 1;
        Admitted { place: Ok(Place { id, table: self.table.clone(), track, close }), displaced }
    }

    /// Closes one connection that waits for its client, because the system has no file descriptor left.
    pub(super) fn make_room(&self, now: Instant) -> bool {
        lock(&self.table).displace(None, false, now)
    }

    /// The number of connections.
    pub(super) fn len(&self) -> usize {
        lock(&self.table).entries.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.table).remove(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const ROOM: Room = Room { total: 8, unproven: 6, per_peer: 4 };

    fn peer(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    fn let_in(connections: &Connections, n: u8, now: Instant) -> Place {
        connections.admit(peer(n), now).place.unwrap_or_else(|why| panic!("peer {n} was refused: {}", why.word()))
    }

    /// A connection that showed a token and waits for the next request.
    fn proven(connections: &Connections, n: u8, now: Instant) -> Place {
        let place = let_in(connections, n, now);
        place.track.connection().set_authenticated(true);
        place
    }

    fn after(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_peer_at_its_limit_loses_its_own_oldest_waiting_connection_and_nobody_elses() {
        let connections = Connections::new(ROOM);
        let start = Instant::now();
        let other = let_in(&connections, 9, start);
        let own: Vec<Place> = (1..=4).map(|at| let_in(&connections, 1, after(start, at))).collect();
        own[0].track.begin(after(start, 5));
        let fifth = connections.admit(peer(1), after(start, 6));
        assert!(fifth.place.is_ok() && fifth.displaced);
        let closed: Vec<bool> = own.iter().map(|place| place.close.is_cancelled()).collect();
        assert_eq!(closed, [false, true, false, false], "the first one is busy");
        assert!(!other.close.is_cancelled());
    }

    #[test]
    fn a_peer_whose_connections_are_all_busy_is_refused_and_others_are_not() {
        let connections = Connections::new(ROOM);
        let start = Instant::now();
        let busy: Vec<Place> = (0..4).map(|_| let_in(&connections, 1, start)).collect();
        for place in &busy {
            place.track.begin(start);
        }
        assert_eq!(connections.admit(peer(1), start).place.err(), Some(Closed::PeerLimit));
        assert!(connections.admit(peer(2), start).place.is_ok());
    }

    #[test]
    fn without_a_token_the_reserve_cannot_be_used_up() {
        let connections = Connections::new(ROOM);
        let start = Instant::now();
        let idle: Vec<Place> = (0..6).map(|n| let_in(&connections, n / 3, after(start, u64::from(n)))).collect();
        let next = connections.admit(peer(7), after(start, 10));
        assert!(next.place.is_ok() && next.displaced);
        assert!(idle[0].close.is_cancelled(), "of peers with as many connections, the oldest");
        assert_eq!(connections.len(), 6, "two places are left for who shows a token");
    }

    #[test]
    fn idle_connections_that_showed_a_token_go_last() {
        let connections = Connections::new(ROOM);
        let start = Instant::now();
        let idp: Vec<Place> = (0..3).map(|_| proven(&connections, 1, start)).collect();
        let strangers: Vec<Place> = (0..20).filter_map(|n| connections.admit(peer(2 + n), start).place.ok()).collect();
        assert_eq!(strangers.len(), 20, "each came in");
        assert_eq!(strangers.iter().filter(|place| !place.close.is_cancelled()).count(), 5);
        assert!(idp.iter().all(|place| !place.close.is_cancelled()));
    }

    #[test]
    fn among_peers_without_a_token_the_one_with_the_most_connections_loses_one() {
        let connections = Connections::new(ROOM);
        let start = Instant::now();
        let single = let_in(&connections, 1, start);
        let single_too = let_in(&connections, 2, start);
        let many: Vec<Place> = (0..4).map(|at| let_in(&connections, 3, after(start, at))).collect();
        drop(connections.admit(peer(4), after(start, 9)));
        assert!(many[0].close.is_cancelled() && !single.close.is_cancelled() && !single_too.close.is_cancelled());
    }

    #[test]
    fn a_request_that_does_not_come_is_given_up_for_another_after_a_second_and_one_at_work_never() {
        let connections = Connections::new(Room { total: 2, unproven: 2, per_peer: 2 });
        let start = Instant::now();
        let (slow, working) = (proven(&connections, 1, start), proven(&connections, 1, start));
        for place in [&slow, &working] {
            place.track.begin(start);
        }
        slow.track.connection().set_receiving(true);
        assert_eq!(connections.admit(peer(2), after(start, 500)).place.err(), Some(Closed::Limit));
        assert!(connections.admit(peer(2), after(start, 1500)).place.is_ok());
        assert!(slow.close.is_cancelled() && !working.close.is_cancelled());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer_and_mapped_ones_are_ipv4() {
        let of = |text: &str| Peer::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn a_connection_that_ends_makes_room() {
        let connections = Connections::new(ROOM);
        let start = Instant::now();
        drop(let_in(&connections, 1, start));
        assert_eq!((connections.len(), lock(&connections.table).per_peer.len()), (0, 0));
    }
}
