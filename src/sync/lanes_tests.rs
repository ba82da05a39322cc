use proptest::prelude::*;

use super::*;
use crate::sync::pacer::Throttled;

fn service(region: &str, name: &str) -> DocumentKey {
    format!("run:projects/p/locations/{region}/services/{name}").parse().unwrap()
}

fn a() -> DocumentKey {
    service("l", "a")
}

const NOTHING: [After; 2] = [After { not_before: None, ask: None }; 2];

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_earlier_request_wins_and_one_turn_serves_all() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.enqueue(&a(), Lane::Addition, Purpose::Write, now + seconds(10));
    lanes.enqueue(&a(), Lane::Addition, Purpose::Write, now + seconds(5));
    lanes.enqueue(&a(), Lane::Removal, Purpose::Write, now + seconds(5));
    assert_eq!(lanes.next_due(now), Some(now + seconds(5)));
    assert_eq!(lanes.pop(now + seconds(4)), None);
    assert_eq!(lanes.pop(now + seconds(5)), Some((a(), Lane::Removal)));
    assert_eq!(lanes.pop(now + seconds(100)), None);
    lanes.complete(&a(), false, NOTHING, now);
    assert!(!lanes.is_busy(&a()) && lanes.next_due(now).is_none());
}

#[test]
fn a_request_during_the_turn_is_served_after_it() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.enqueue(&a(), Lane::Removal, Purpose::Write, now);
    assert!(lanes.pop(now).is_some());
    lanes.enqueue(&a(), Lane::Removal, Purpose::Write, now);
    assert_eq!(lanes.pop(now + seconds(9)), None, "one turn at a time");
    lanes.complete(&a(), false, NOTHING, now);
    assert_eq!(lanes.pop(now + seconds(9)), Some((a(), Lane::Removal)));
}

#[test]
fn a_back_off_of_additions_does_not_delay_a_removal_and_outlives_its_turn() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.enqueue(&a(), Lane::Addition, Purpose::Write, now);
    assert!(lanes.pop(now).is_some());
    let until = now + seconds(300);
    lanes.complete(&a(), false, [After::default(), After { not_before: Some(until), ask: Some(until) }], now);
    lanes.enqueue(&a(), Lane::Addition, Purpose::Write, now + seconds(1));
    assert_eq!(lanes.pop(now + seconds(299)), None, "no request ends a back-off");
    lanes.enqueue(&a(), Lane::Removal, Purpose::Write, now + seconds(2));
    assert_eq!(lanes.pop(now + seconds(2)), Some((a(), Lane::Removal)));
    assert!(!lanes.additions_open(&a(), now + seconds(2)));
    let bound = lanes.not_before(&a(), Lane::Addition);
    lanes.complete(&a(), false, [After::default(), After { not_before: bound, ask: None }], now);
    assert_eq!(lanes.next_due(now), Some(until), "the request for the additions is still there");
    assert_eq!(lanes.pop(until), Some((a(), Lane::Addition)));
}

#[test]
fn removals_go_before_additions_and_an_addition_that_waited_long_has_guaranteed_turns() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let old = service("l", "old");
    let turns = |lanes: &mut Lanes, at: Instant| {
        let mut removals = 0;
        loop {
            lanes.enqueue(&service("l", &format!("leaver-{removals}")), Lane::Removal, Purpose::Write, at);
            let (key, lane) = lanes.pop(at).unwrap();
            lanes.complete(&key, false, NOTHING, at);
            if lane == Lane::Addition || removals == 1000 {
                return removals;
            }
            removals += 1;
        }
    };
    lanes.enqueue(&old, Lane::Addition, Purpose::Write, now);
    assert_eq!(turns(&mut lanes, now + seconds(59)), 1000, "an addition does not delay a leaver");
    assert!(turns(&mut lanes, now + seconds(60)) <= TURNS, "it has waited a minute");
    lanes.enqueue(&old, Lane::Addition, Purpose::Write, now);
    assert_eq!(turns(&mut lanes, now + seconds(60)), TURNS);
    lanes.enqueue(&old, Lane::Addition, Purpose::Write, now);
    throttle(&mut lanes, now + seconds(60), None);
    let mut at = now + seconds(60);
    let mut removals = 0;
    loop {
        at += seconds(2);
        lanes.enqueue(&service("l", "leaver"), Lane::Removal, Purpose::Write, at);
        let (key, lane) = lanes.pop(at).unwrap();
        lanes.complete(&key, false, NOTHING, at);
        if lane == Lane::Addition {
            break;
        }
        removals += 1;
    }
    assert_eq!(removals, TURNS_LIMITED, "fewer while the quota is spent, and not none");
}

/// Refuses a write in region `l`.
fn throttle(lanes: &mut Lanes, now: Instant, retry_after: Option<u64>) {
    let retry_after = retry_after.map(Duration::from_secs);
    lanes.throttled(&a().region(), Call::Write, &Throttled { begun: now, now, retry_after, per_minute: None });
}

#[test]
fn what_one_document_is_throttled_for_holds_for_the_region_and_for_no_other() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let (here, there, look) = (service("l", "b"), service("m", "b"), service("l", "look"));
    lanes.limit = IN_ALL;
    throttle(&mut lanes, now, None);
    for document in [&a(), &here, &there] {
        lanes.enqueue(document, Lane::Addition, Purpose::Write, now);
    }
    lanes.enqueue(&look, Lane::Addition, Purpose::Look, now);
    assert_eq!(lanes.pop(now), Some((look, Lane::Addition)), "a read needs no quota of writes");
    assert_eq!(lanes.pop(now), Some((there.clone(), Lane::Addition)));
    assert_eq!(lanes.pop(now), None);
    assert_eq!(lanes.admit_write(&there, Lane::Addition, now), Admission::Now);
    let next = lanes.next_due(now).unwrap();
    assert!((now..now + seconds(1)).contains(&next), "about one a second is assumed");
    // A removal anywhere in the region takes precedence over everything that waits for quota.
    lanes.enqueue(&here, Lane::Removal, Purpose::Write, now);
    assert_eq!(lanes.pop(next), Some((here.clone(), Lane::Removal)));
    assert_eq!(lanes.pop(next), None, "one for each token");
    lanes.begin_write(&here, next);
    lanes.complete(&here, false, NOTHING, next);
    lanes.end_call(&here.region(), Call::Write);
    lanes.answered(&here.region(), Call::Write, next, next);
    assert_eq!(lanes.pop(next + seconds(1)), Some((a(), Lane::Addition)));
}

#[test]
fn write_that_was_reserved_and_not_sent_is_free_for_the_next() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    throttle(&mut lanes, now, None);
    let at = now + seconds(1);
    for name in ["a", "b"] {
        lanes.enqueue(&service("l", name), Lane::Removal, Purpose::Write, now);
    }
    let (key, _) = lanes.pop(at).unwrap();
    assert_eq!(lanes.pop(at), None);
    lanes.complete(&key, false, NOTHING, at);
    assert_eq!(lanes.pop(at), Some((service("l", "b"), Lane::Removal)));
}

#[test]
fn attempt_that_only_looks_may_not_write_while_the_quota_is_spent() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.enqueue(&a(), Lane::Addition, Purpose::Look, now);
    assert!(lanes.pop(now).is_some());
    throttle(&mut lanes, now, None);
    assert_eq!(lanes.admit_write(&a(), Lane::Addition, now), Admission::Later);
    lanes.enqueue(&service("l", "leaver"), Lane::Removal, Purpose::Write, now);
    let later = now + seconds(5);
    assert_eq!(lanes.admit_write(&a(), Lane::Addition, later), Admission::Later, "a leaver waits");
    assert_eq!(lanes.admit_write(&a(), Lane::Removal, later), Admission::Now);
}

#[test]
fn few_writes_are_under_way_at_a_time_until_many_were_accepted() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let keys: Vec<DocumentKey> = (0..30).map(|n| service("l", &format!("s{n:02}"))).collect();
    lanes.limit = IN_ALL;
    for key in &keys {
        lanes.enqueue(key, Lane::Removal, Purpose::Write, now);
        assert!(lanes.pop(now).is_some());
    }
    let admitted = |lanes: &mut Lanes| {
        let now_writing = keys.iter().filter(|key| lanes.admit_write(key, Lane::Removal, now) == Admission::Now);
        let now_writing: Vec<DocumentKey> = now_writing.cloned().collect();
        for key in &now_writing {
            lanes.begin_write(key, now);
        }
        now_writing.len()
    };
    let mut widths = Vec::new();
    for _ in 0..200 {
        let writing = admitted(&mut lanes);
        widths.push(writing);
        for _ in 0..writing {
            lanes.end_call(&a().region(), Call::Write);
            lanes.answered(&a().region(), Call::Write, now, now);
        }
    }
    assert_eq!(widths[..9], [1, 1, 1, 1, 2, 2, 3, 3, 4]);
    assert_eq!(widths.last(), Some(&16), "a part of the accepted ones may be under way, and refused together");
}

#[test]
fn removals_are_first_when_the_quota_is_back() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    throttle(&mut lanes, now, Some(20));
    lanes.enqueue(&service("l", "leaver"), Lane::Removal, Purpose::Write, now);
    lanes.enqueue(&a(), Lane::Addition, Purpose::Write, now);
    assert_eq!(lanes.pop(now + seconds(19)), None);
    assert_eq!(lanes.pop(now + seconds(20)), Some((service("l", "leaver"), Lane::Removal)));
}

#[test]
fn documents_that_hang_use_up_neither_their_region_nor_the_others() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for n in 0..40 {
        lanes.enqueue(&service("l", &format!("hangs-{n:02}")), Lane::Removal, Purpose::Write, now);
    }
    let (here, there) = (service("l", "z"), service("m", "z"));
    lanes.enqueue(&here, Lane::Removal, Purpose::Write, now + seconds(1));
    lanes.enqueue(&there, Lane::Removal, Purpose::Write, now + seconds(1));
    let now = now + seconds(1);
    let mut rounds = 0;
    let mut open = Vec::new();
    loop {
        let mut begun = Vec::new();
        while let Some((key, _)) = lanes.pop(now) {
            begun.push(key);
        }
        rounds += 1;
        assert!(begun.len() <= IN_ALL);
        for key in begun.iter().filter(|key| key.name() != "z") {
            assert!(lanes.hangs(key));
        }
        open.extend(begun);
        if open.contains(&here) && open.contains(&there) {
            break;
        }
    }
    assert!(rounds <= 7, "{rounds} rounds");
    // From then on, hanging documents get no slot from the start.
    let hung: Vec<DocumentKey> = open.into_iter().filter(|key| key.name() != "z").collect();
    for key in &hung {
        lanes.complete(key, true, NOTHING, now);
        lanes.enqueue(key, Lane::Removal, Purpose::Write, now);
    }
    lanes.complete(&here, false, NOTHING, now);
    lanes.enqueue(&here, Lane::Removal, Purpose::Write, now + seconds(5));
    let taken: Vec<DocumentKey> = std::iter::from_fn(|| lanes.pop(now + seconds(5)).map(|(key, _)| key)).collect();
    assert_eq!(taken.len(), hung.len() + 1);
}

#[test]
fn few_attempts_start_after_a_quiet_time_and_each_that_ends_makes_room_for_more() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for n in 0..100 {
        lanes.enqueue(&service("l", &format!("s{n:02}")), Lane::Removal, Purpose::Write, now);
    }
    let start = |lanes: &mut Lanes| std::iter::from_fn(|| lanes.pop(now).map(|(key, _)| key)).collect::<Vec<_>>();
    let mut running = start(&mut lanes);
    let mut sizes = vec![running.len()];
    while !running.is_empty() {
        for key in std::mem::take(&mut running) {
            lanes.complete(&key, false, NOTHING, now);
            running.extend(start(&mut lanes));
        }
        sizes.push(running.len());
    }
    assert_eq!(sizes, [2, 6, 18, 32, 32, 10, 0], "they triple, up to the limit of the region");
    lanes.enqueue(&a(), Lane::Removal, Purpose::Write, now);
    lanes.enqueue(&service("l", "b"), Lane::Removal, Purpose::Write, now);
    lanes.enqueue(&service("l", "c"), Lane::Removal, Purpose::Write, now);
    let ending = start(&mut lanes);
    assert_eq!(ending.len(), FIRST, "the next one starts small again");
    lanes.complete(&ending[0], false, NOTHING, now);
    running = start(&mut lanes);
    assert_eq!((running.len(), start(&mut lanes).len()), (1, 0), "nothing else is due");
    for n in 0..100 {
        lanes.enqueue(&service("l", &format!("t{n:02}")), Lane::Removal, Purpose::Write, now);
    }
    assert_eq!(start(&mut lanes).len(), FIRST, "also while others are still ending");
}

proptest! {
    #[test]
    fn every_request_gets_a_turn_not_before_its_bound_and_never_two_at_once(
        steps in proptest::collection::vec((0_usize..6, 0_u64..20, any::<bool>(), 0_u8..8), 1..200)
    ) {
        let mut lanes = Lanes::default();
        let start = Instant::now();
        let key = |n: usize| service(if n < 3 { "l" } else { "m" }, &format!("s{n}"));
        let mut at = 0_u64;
        let mut bound = [[0_u64; 2]; 6];
        let mut open = [false; 6];
        let mut running: Vec<usize> = Vec::new();
        for (n, delay, removal, what) in steps {
            let now = |at: u64| start + Duration::from_secs(at);
            let lane = if removal { Lane::Removal } else { Lane::Addition };
            let purpose = if what % 2 == 0 { Purpose::Write } else { Purpose::Look };
            lanes.enqueue(&key(n), lane, purpose, now(at + delay));
            open[n] = true;
            at += 1;
            if what == 7 {
                let answer = Throttled { begun: now(at), now: now(at), retry_after: None, per_minute: None };
                lanes.throttled(&key(n).region(), Call::Write, &answer);
            }
            if let Some((taken, lane)) = lanes.pop(now(at)) {
                let taken = (0..6).find(|n| key(*n) == taken).unwrap();
                prop_assert!(!running.contains(&taken));
                prop_assert!(at >= bound[taken][lane as usize]);
                running.push(taken);
                if what == 1 {
                    lanes.hangs(&key(taken));
                }
            }
            if what > 1 && let Some(ended) = running.pop() {
                let not_before = (what == 3).then_some(at + 7);
                bound[ended] = [not_before.unwrap_or(0); 2];
                let after = After { not_before: not_before.map(now), ask: None };
                lanes.complete(&key(ended), what == 4, [after; 2], now(at));
            }
        }
        for ended in running {
            lanes.complete(&key(ended), false, NOTHING, start + Duration::from_secs(at));
        }
        at += 1000;
        while let Some((taken, _)) = lanes.pop(start + Duration::from_secs(at)) {
            let taken = (0..6).find(|n| key(*n) == taken).unwrap();
            open[taken] = false;
            lanes.complete(&key(taken), false, NOTHING, start + Duration::from_secs(at));
            at += 1000;
        }
        for (n, open) in open.iter().enumerate() {
            prop_assert!(!open || !lanes.is_busy(&key(n)));
        }
    }
}
