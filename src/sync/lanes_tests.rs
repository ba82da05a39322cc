use proptest::prelude::*;

use super::*;

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
    lanes.enqueue(&a(), Lane::Addition, now + seconds(10));
    lanes.enqueue(&a(), Lane::Addition, now + seconds(5));
    lanes.enqueue(&a(), Lane::Removal, now + seconds(5));
    assert_eq!(lanes.next_due(now), Some(now + seconds(5)));
    assert_eq!(lanes.pop(now + seconds(4)), None);
    assert_eq!(lanes.pop(now + seconds(5)), Some((a(), Lane::Removal)));
    assert_eq!(lanes.pop(now + seconds(100)), None);
    lanes.complete(&a(), false, NOTHING);
    assert!(!lanes.is_busy(&a()) && lanes.next_due(now).is_none());
}

#[test]
fn a_request_during_the_turn_is_served_after_it() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.enqueue(&a(), Lane::Removal, now);
    assert!(lanes.pop(now).is_some());
    lanes.enqueue(&a(), Lane::Removal, now);
    assert_eq!(lanes.pop(now + seconds(9)), None, "one turn at a time");
    lanes.complete(&a(), false, NOTHING);
    assert_eq!(lanes.pop(now + seconds(9)), Some((a(), Lane::Removal)));
}

#[test]
fn a_back_off_of_additions_does_not_delay_a_removal_and_outlives_its_turn() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    lanes.enqueue(&a(), Lane::Addition, now);
    assert!(lanes.pop(now).is_some());
    let until = now + seconds(300);
    lanes.complete(&a(), false, [After::default(), After { not_before: Some(until), ask: Some(until) }]);
    lanes.enqueue(&a(), Lane::Addition, now + seconds(1));
    assert_eq!(lanes.pop(now + seconds(299)), None, "no request ends a back-off");
    lanes.enqueue(&a(), Lane::Removal, now + seconds(2));
    assert_eq!(lanes.pop(now + seconds(2)), Some((a(), Lane::Removal)));
    assert!(!lanes.additions_open(&a(), now + seconds(2)));
    let bound = lanes.not_before(&a(), Lane::Addition);
    lanes.complete(&a(), false, [After::default(), After { not_before: bound, ask: None }]);
    assert_eq!(lanes.next_due(now), Some(until), "the request for the additions is still there");
    assert_eq!(lanes.pop(until), Some((a(), Lane::Addition)));
}

#[test]
fn removals_go_before_additions_and_an_addition_ages_into_its_turn() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let (old, new, leaver) = (service("l", "old"), service("l", "new"), service("l", "z"));
    lanes.enqueue(&old, Lane::Addition, now);
    lanes.enqueue(&new, Lane::Addition, now + seconds(59));
    lanes.enqueue(&leaver, Lane::Removal, now + seconds(59));
    assert_eq!(lanes.pop(now + seconds(59)), Some((leaver.clone(), Lane::Removal)));
    lanes.complete(&leaver, false, NOTHING);
    lanes.enqueue(&leaver, Lane::Removal, now + seconds(61));
    assert_eq!(lanes.pop(now + seconds(61)), Some((old, Lane::Addition)), "it waited a minute");
    assert_eq!(lanes.pop(now + seconds(61)), Some((leaver, Lane::Removal)));
}

#[test]
fn what_one_document_is_throttled_for_holds_for_the_region_and_for_no_other() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let (here, there) = (service("l", "b"), service("m", "b"));
    lanes.throttled(&a().region(), true, Throttled { begun: now, now, retry_after: None, random: 1.0 });
    for document in [&a(), &here, &there] {
        lanes.enqueue(document, Lane::Addition, now);
    }
    assert_eq!(lanes.pop(now + seconds(1)), Some((there, Lane::Addition)));
    assert_eq!(lanes.pop(now + seconds(1)), None);
    // A removal anywhere in the region takes precedence over everything that waits for quota.
    lanes.enqueue(&here, Lane::Removal, now + seconds(1));
    assert_eq!(lanes.pop(now + seconds(1)), Some((here.clone(), Lane::Removal)));
    assert_eq!(lanes.pop(now + seconds(3)), None, "after a refusal one at a time");
    lanes.answered(&here.region(), true, now + seconds(1));
    lanes.complete(&here, false, NOTHING);
    assert_eq!(lanes.pop(now + seconds(3)), Some((a(), Lane::Addition)));
}

#[test]
fn removals_are_first_when_the_quota_is_back() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    let asked = Throttled { begun: now, now, retry_after: Some(seconds(20)), random: 0.0 };
    lanes.throttled(&a().region(), true, asked);
    lanes.enqueue(&service("l", "leaver"), Lane::Removal, now);
    lanes.enqueue(&a(), Lane::Addition, now);
    assert!(lanes.write_opens(&a().region(), Lane::Addition, now + seconds(19)).is_some());
    assert_eq!(lanes.pop(now + seconds(20)), Some((service("l", "leaver"), Lane::Removal)));
}

#[test]
fn documents_that_hang_use_up_neither_their_region_nor_the_others() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for n in 0..40 {
        lanes.enqueue(&service("l", &format!("hangs-{n:02}")), Lane::Removal, now);
    }
    let (here, there) = (service("l", "z"), service("m", "z"));
    lanes.enqueue(&here, Lane::Removal, now + seconds(1));
    lanes.enqueue(&there, Lane::Removal, now + seconds(1));
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
        lanes.complete(key, true, NOTHING);
        lanes.enqueue(key, Lane::Removal, now);
    }
    lanes.complete(&here, false, NOTHING);
    lanes.enqueue(&here, Lane::Removal, now + seconds(5));
    let taken: Vec<DocumentKey> = std::iter::from_fn(|| lanes.pop(now + seconds(5)).map(|(key, _)| key)).collect();
    assert_eq!(taken.len(), hung.len() + 1);
}

#[test]
fn few_attempts_start_after_a_quiet_time_and_each_that_ends_makes_room_for_more() {
    let (mut lanes, now) = (Lanes::default(), Instant::now());
    for n in 0..100 {
        lanes.enqueue(&service("l", &format!("s{n:02}")), Lane::Removal, now);
    }
    let start = |lanes: &mut Lanes| std::iter::from_fn(|| lanes.pop(now).map(|(key, _)| key)).collect::<Vec<_>>();
    let mut running = start(&mut lanes);
    let mut sizes = vec![running.len()];
    while !running.is_empty() {
        for key in std::mem::take(&mut running) {
            lanes.complete(&key, false, NOTHING);
            running.extend(start(&mut lanes));
        }
        sizes.push(running.len());
    }
    assert_eq!(sizes, [2, 6, 18, 32, 32, 10, 0], "they triple, up to the limit of the region");
    lanes.enqueue(&a(), Lane::Removal, now);
    lanes.enqueue(&service("l", "b"), Lane::Removal, now);
    lanes.enqueue(&service("l", "c"), Lane::Removal, now);
    let ending = start(&mut lanes);
    assert_eq!(ending.len(), FIRST, "the next one starts small again");
    lanes.complete(&ending[0], false, NOTHING);
    running = start(&mut lanes);
    assert_eq!((running.len(), start(&mut lanes).len()), (1, 0), "nothing else is due");
    for n in 0..100 {
        lanes.enqueue(&service("l", &format!("t{n:02}")), Lane::Removal, now);
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
            lanes.enqueue(&key(n), lane, now(at + delay));
            open[n] = true;
            at += 1;
            if what == 7 {
                lanes.throttled(&key(n).region(), true, Throttled { begun: now(at), now: now(at), retry_after: None, random: 0.5 });
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
                lanes.complete(&key(ended), what == 4, [after; 2]);
            }
        }
        for ended in running {
            lanes.complete(&key(ended), false, NOTHING);
        }
        at += 1000;
        while let Some((taken, _)) = lanes.pop(start + Duration::from_secs(at)) {
            let taken = (0..6).find(|n| key(*n) == taken).unwrap();
            open[taken] = false;
            lanes.complete(&key(taken), false, NOTHING);
            at += 1000;
        }
        for (n, open) in open.iter().enumerate() {
            prop_assert!(!open || !lanes.is_busy(&key(n)));
        }
    }
}
