//! Runs one seed: an installation, its steps, and the checks once it is idle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::chance::Chance;
use super::clock::SimulatedClock;
use super::database::Database;
use super::expect::Memory;
use super::facts::{Facts, Locked, Provider, ROLES, SERVICES, Setup, Target, address, document, grant};
use super::process::{Changed, Process, Shared};
use super::report::{Counts, Report};
use crate::catalog::{Ceiling, NestingBounds};
use crate::model::{
    Clock as _, DocumentKey, FreezeReason, GroupId, MemberKey, ProviderName, Randomness, RemovalLimits, UserId,
};
use crate::store::{Origin, Store, StoreError, StoreFaults};
use crate::sync::EngineConfig;
use crate::target::scripted::{Chances, Rule, Scripted};

/// A simulated installation.
pub(super) struct Simulation {
    pub(super) chance: Chance,
    pub(super) clock: SimulatedClock,
    pub(super) target: Scripted,
    database: Database,
    /// The store of a SCIM server in another process, with its faults.
    directory: (Store, StoreFaults),
    /// A store without faults, for the checks.
    observer: Store,
    /// Number of calls of a thousand that the store refuses.
    refused: u64,
    /// True when the leading process serves SCIM requests.
    beside: bool,
    pub(super) config: EngineConfig,
    pub(super) facts: Shared,
    pub(super) memory: Memory,
    pub(super) leader: Option<Process>,
    /// Processes that lost the leadership to another one.
    pub(super) former: Vec<Process>,
    pub(super) rules: Vec<Rule>,
    pub(super) denied: BTreeSet<DocumentKey>,
    pub(super) hidden: BTreeSet<DocumentKey>,
    pub(super) chances: Chances,
    /// Number of writes when it was first observed that nothing may be written.
    stopped: Option<usize>,
    steps: Vec<(Instant, String)>,
    pub(super) problems: Vec<String>,
    pub(super) counts: Counts,
}

pub(super) fn okta() -> ProviderName {
    ProviderName::new("okta").expect("a name")
}

pub(super) fn origin() -> Origin {
    Origin { token: "a".to_owned(), request_id: None }
}

/// Runs a seed from start to end. `most`: the largest number of steps; none: as many as the seed draws.
pub(super) async fn play(seed: u64, traced: bool, most: Option<usize>) -> Report {
    let mut simulation = Simulation::new(seed).await;
    if traced {
        simulation.target.trace();
    }
    simulation.begin().await;
    // Most faults need few steps. A long run finds those that need many.
    let longest = if simulation.chance.one_in(4) { 36 } else { 18 };
    let steps = 4 + simulation.chance.below(longest);
    for _ in 0..most.map_or(steps, |most| most.min(steps)) {
        simulation.step().await;
        simulation.counts.steps += 1;
        if !simulation.problems.is_empty() {
            break;
        }
    }
    simulation.finish(seed).await
}

impl Simulation {
    async fn new(seed: u64) -> Self {
        let chance = Chance::new(seed);
        let clock = SimulatedClock::new();
        let database = Database::new(seed);
        let faults = StoreFaults::default();
        let directory = (database.open(clock, &faults).await, faults);
        let observer = database.open(clock, &StoreFaults::default()).await;
        let setup = Setup {
            by_email: chance.one_in(3),
            permits_suspend: chance.one_in(3),
            permits_orphan: chance.one_in(2),
            by_labels: chance.one_in(4),
            depth: if chance.one_in(4) { 1 } else { 10 },
        };
        let drift = Duration::from_secs(60 + chance.below(240) as u64);
        let limits = if chance.one_in(3) { RemovalLimits::new(2, 3) } else { RemovalLimits::new(1000, 1000) };
        // Statuses are folded as often as in production in some seeds only, since that takes a quarter of the time.
        let status_window = Duration::from_millis(if chance.one_in(4) { 100 } else { 1000 });
        let config = EngineConfig {
            limits,
            seed: Some(chance.seed()),
            status_window,
            // The clock of a simulation is never set back, so this check has nothing to find.
            clock_check: Duration::from_hours(24),
            nesting: NestingBounds { depth: setup.depth, ..NestingBounds::default() },
            ..EngineConfig::new(Ceiling::Enforce, drift)
        };
        let mut facts = Facts::new(setup);
        if chance.one_in(3) {
            facts.aliases = aliases(&chance);
        }
        let heavy = [0, 1, 4][chance.below(3)];
        let chances = Chances {
            slow: 10 * heavy,
            stale: 40 * heavy,
            unavailable: 15 * heavy,
            throttled: 10 * heavy,
            lost: 40 * heavy,
            list: 20 * heavy,
        };
        let target = Scripted::default();
        target.respell(facts.aliases.clone());
        target.on_chance(Some((chances, chance.fork())));
        Self {
            beside: chance.one_in(2),
            clock,
            target,
            database,
            directory,
            observer,
            refused: 0,
            chance,
            config,
            facts: Arc::new(Mutex::new(facts)),
            memory: Memory::default(),
            leader: None,
            former: Vec::new(),
            rules: Vec::new(),
            denied: BTreeSet::new(),
            hidden: BTreeSet::new(),
            chances,
            stopped: None,
            steps: Vec::new(),
            problems: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Installs rolecall.
    async fn begin(&mut self) {
        let services = 1 + self.chance.below(3);
        for service in &SERVICES[..services] {
            self.target.create(&document(service));
        }
        self.facts().provider = Some(Provider { generation: 1, suspended: false });
        let roles = ROLES.map(str::to_owned).to_vec();
        self.facts().targets[0] = Some(Target { generation: 1, asked: 0, roles, age: 0 });
        if self.chance.one_in(4) {
            self.change_target(1);
        }
        if self.chance.one_in(8) {
            // People who have access before rolecall is installed: three of them look like the grants of a lost store.
            for number in 0..=self.chance.below(4) {
                let documents = self.target.documents();
                if let Some(on) = self.chance.pick(&documents) {
                    self.add_by_hand(&on, &grant(ROLES[0], &address(number)));
                }
            }
        }
        self.start().await;
        // The IdP only pushes to a provider that is in force.
        self.pass(Duration::from_secs(1)).await;
        self.refuse([0, 0, 4, 25][self.chance.below(4)]);
        for _ in 0..2 + self.chance.below(4) {
            self.create_person().await;
        }
        for team in 0..2 {
            self.create_team(team).await;
        }
        for mapping in 0..=self.chance.below(2) {
            self.apply_mapping(mapping);
        }
        self.noted().await;
    }

    pub(super) fn facts(&self) -> Locked<'_> {
        Locked(self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Records the next step in the trace.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.steps.push((Instant::now(), text.into()));
    }

    /// The store that requests of the IdP reach.
    pub(super) fn idp(&self) -> Store {
        match &self.leader {
            Some(process) if self.beside => process.store.clone(),
            _ => self.directory.0.clone(),
        }
    }

    /// A store without faults.
    pub(super) fn store(&self) -> &Store {
        &self.observer
    }

    /// Makes a request of the IdP about this user or group. Returns whether its change is stored.
    pub(super) fn request<T>(
        &mut self,
        of: Uuid,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = bool> {
        let answered = self.answered(of, request);
        async { answered.await.unwrap_or(false) }
    }

    /// Makes a request of the IdP as [`Simulation::request`] does, or returns the error with which it was refused.
    pub(super) fn answered<T>(
        &mut self,
        of: Uuid,
        request: impl Future<Output = Result<T, StoreError>>,
    ) -> impl Future<Output = Result<bool, StoreError>> {
        // Boxed here, since the futures of the store are large.
        let request = Box::pin(request);
        async move {
            let before = (self.observer.highest_seq().await.expect("a position"), self.version(of).await);
            let answer = self.until_the_end(request).await;
            if let Some(Ok(_)) = answer {
                return Ok(true);
            }
            // A member that waits, or does no more, leaves no event.
            let has_events = !self.observer.follow_events(before.0, 1).await.expect("events").0.is_empty();
            let stored = has_events || self.version(of).await != before.1;
            let Some(Err(error)) = answer else { return Ok(stored) };
            self.counts.refusals += 1;
            if stored {
                self.problems.push("a request that was answered with an error was stored".to_owned());
            }
            Err(error)
        }
    }

    /// The version of a user or group, if it exists.
    async fn version(&self, id: Uuid) -> Option<i64> {
        let user = self.observer.user(&okta(), UserId(id)).await.expect("a user").map(|user| user.version);
        match user {
            Some(version) => Some(version),
            None => self.observer.group(&okta(), GroupId(id)).await.expect("a group").map(|group| group.version),
        }
    }

    /// The answer to a request of the IdP; none when the process ends meanwhile.
    pub(super) async fn until_the_end<T>(&mut self, request: impl Future<Output = T>) -> Option<T> {
        let answer = tokio::select! {
            biased;
            () = self.ended() => None,
            answer = request => Some(answer),
        };
        if answer.is_none() {
            self.kill();
        }
        answer
    }

    /// Carries out a decision of a person; the process may end meanwhile. A decision that the store does not accept is
    /// repeated by its caller.
    pub(super) async fn decide(&mut self, decision: impl Future<Output = Result<(), StoreError>>) {
        // Neither the end of the process nor a refusal of the store is a failure of the simulation.
        drop(self.until_the_end(decision).await);
    }

    /// Waits until the leader has ended, because of a commit after which it was to end.
    async fn ended(&self) {
        match &self.leader {
            Some(process) => process.faults.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Draws which calls a store refuses.
    fn refusals(&self) -> Option<(u64, Arc<Randomness>)> {
        (self.refused > 0).then(|| (self.refused, self.chance.fork()))
    }

    /// Sets the number of calls of a thousand that the store refuses.
    pub(super) fn refuse(&mut self, of_thousand: u64) {
        self.refused = of_thousand;
        self.directory.1.refuse(self.refusals());
        for process in self.leader.iter().chain(&self.former) {
            process.faults.refuse(self.refusals());
            if of_thousand == 0 {
                process.faults.end_after(None);
            }
        }
    }

    /// Starts a process, which takes over from the leader.
    pub(super) async fn start(&mut self) {
        let faults = StoreFaults::default();
        faults.refuse(self.refusals());
        let store = self.database.open(self.clock, &faults).await;
        let name = format!("process {}", self.counts.crashes + self.counts.takeovers);
        let ceiling = if self.facts().observes { Ceiling::Observe } else { Ceiling::Enforce };
        let config = EngineConfig { seed: Some(self.chance.seed()), ceiling, ..self.config };
        let process = Process::start(name, config, (store, faults), &self.target, self.clock, self.facts.clone());
        self.former.extend(self.leader.replace(process));
    }

    /// Kills the leader, after some turns of its tasks.
    pub(super) async fn crash(&mut self) {
        for _ in 0..self.chance.below(60) {
            tokio::task::yield_now().await;
        }
        self.kill();
    }

    /// Kills the leader at its current point.
    fn kill(&mut self) {
        self.leader = None;
        self.counts.crashes += 1;
    }

    pub(super) fn tell(&self, changed: &Changed) {
        for process in self.leader.iter().chain(&self.former) {
            process.tell(changed.clone());
        }
    }

    pub(super) async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        let has_ended = tokio::select! {
            biased;
            () = self.ended() => true,
            () = tokio::time::sleep_until(until) => false,
        };
        if has_ended {
            self.say("the process ends after a commit");
            self.kill();
            tokio::time::sleep_until(until).await;
        }
        self.noted().await;
    }

    /// Records the current facts.
    pub(super) fn note_facts(&mut self) -> Facts {
        let documents: Vec<DocumentKey> = SERVICES.iter().map(|service| document(service)).collect();
        let (now, facts) = (self.now(), self.facts().clone());
        self.memory.note(&facts, &documents, now);
        facts
    }

    /// Records the facts, and checks what must hold at any time.
    pub(super) async fn noted(&mut self) {
        let facts = self.note_facts();
        self.look();
        self.look_for_writes();
        if self.is_settled().await {
            self.memory.set_pins(self.observer.pins().await.expect("pins"));
            self.memory.at_rest(&facts, &self.target, &self.rules);
            let lost = self.lost_claims(&facts).await;
            self.problems.extend(lost);
        }
        if self.leader.as_ref().is_some_and(Process::has_ended)
            && let Some(process) = self.leader.take()
        {
            self.problems.extend(process.failure().await);
        }
    }

    /// True when the engine has processed everything that happened, and has nothing to do.
    pub(super) async fn is_settled(&self) -> bool {
        let Some(process) = &self.leader else { return false };
        let engine = &process.engine;
        let idle = process.unhandled() == 0
            && engine.frozen().is_none()
            && engine.busy().is_none()
            && !engine.waits()
            && self.target.under_way() == 0;
        idle && self.observer.highest_seq().await.expect("a position") <= process.engine.directory_seq()
    }

    /// Checks that nothing is written while nothing may be written.
    fn look_for_writes(&mut self) {
        let doubted = |process: &Process| process.engine.frozen() == Some(FreezeReason::StoreMismatch);
        let stops = self.facts().observes || self.leader.as_ref().is_some_and(doubted);
        if !stops || !self.former.is_empty() {
            self.stopped = None;
        } else if self.target.under_way() == 0 {
            let writes = self.target.writes();
            if *self.stopped.get_or_insert(writes) != writes {
                self.problems.push("something was written although nothing may be written".to_owned());
            }
        }
    }

    pub(super) fn change_rules(&mut self, rules: Vec<Rule>) {
        self.target.refuse(rules.clone());
        self.rules = rules;
    }

    async fn finish(mut self, seed: u64) -> Report {
        if self.problems.is_empty() {
            self.end().await;
        }
        let audit = self.audit().await;
        self.counts.audit_rows = audit.len() as u64;
        self.counts.writes = self.target.writes() as u64;
        self.counts.virtual_seconds = self.clock.elapsed().as_secs();
        let mut all = self.target.traced();
        if all.is_empty() {
            return Report { seed, problems: self.problems, counts: self.counts, ..Report::default() };
        }
        all.extend(self.steps.iter().map(|(at, text)| (*at, format!("== {text}"))));
        all.sort_by_key(|(at, _)| *at);
        let mut trace: Vec<String> =
            all.into_iter().map(|(at, text)| format!("{:10.3} {text}", self.clock.seconds(at))).collect();
        let rows: Vec<String> = audit.iter().map(|row| format!("{:?}", row.entry)).collect();
        let digest = Report::digest_of(&trace, &rows);
        if !self.problems.is_empty() {
            trace.extend(audit.iter().map(super::check::shown));
            trace.extend(self.remembered().await);
        }
        Report { seed, problems: self.problems, trace, digest, counts: self.counts, ..Report::default() }
    }
}

/// Accounts that the target stores under another address.
fn aliases(chance: &Chance) -> BTreeMap<MemberKey, String> {
    let of = |number: usize, primary: String| (MemberKey::of(&format!("user:{}", address(number))), primary);
    let first = of(0, "user:Primary0@corp.example".to_owned());
    // At most one alias leads outside the permitted domains: two that were sent together could not be told apart, and
    // both would be removed.
    BTreeMap::from_iter(match chance.below(4) {
        0 => vec![first, of(1, format!("user:{}", address(3)))],
        1 => vec![of(1, "user:p1@gmail.example".to_owned())],
        2 => vec![first, of(1, "user:primary1@corp.example".to_owned())],
        _ => vec![first],
    })
}
