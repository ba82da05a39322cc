//! Losses of power under write load: what was answered with 2xx is stored, and a request without an answer is stored
//! whole or not at all.
//!
//! A killed process loses nothing that it wrote, because the kernel keeps it. `power_loss.c`, preloaded into the binary,
//! therefore keeps what a loss of power would leave: what was synced. After each kill that takes the place of the database.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::*;

/// Simulated losses of power.
const KILLS: usize = 52;
/// Clients that write at the same time, each people and a group of its own.
const CLIENTS: usize = 8;
/// Largest number of people of one client.
const PEOPLE: usize = 12;

/// A person, as a client left it. The id is unknown when the answer to the creation was lost.
#[derive(Debug, Clone)]
struct Person {
    id: Option<String>,
    title: String,
    active: bool,
}

impl PartialEq for Person {
    fn eq(&self, other: &Self) -> bool {
        let same_id = self.id.is_none() || other.id.is_none() || self.id == other.id;
        same_id && self.title == other.title && self.active == other.active
    }
}

/// People by user name, and the user names in the group of the client.
#[derive(Debug, Clone, Default, PartialEq)]
struct State {
    people: BTreeMap<String, Person>,
    members: BTreeSet<String>,
}

/// A client, with what its answers say and, while a request has no answer, what will be if it was stored.
struct Client {
    number: usize,
    group: String,
    known: State,
    pending: Option<State>,
    random: Random,
    created: usize,
}

/// Pseudo-random numbers (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).expect("an index")
    }
}

impl Client {
    /// The next request, and the state after it.
    fn next(&mut self) -> (Method, String, Option<Value>, State) {
        let mut after = self.known.clone();
        let count = after.people.len();
        let choice = if count == 0 { 0 } else { self.random.below(10) };
        if choice < 3 && count < PEOPLE {
            self.created += 1;
            let name = format!("c{}-{}@example.com", self.number, self.created);
            let person = Person { id: None, title: "new".to_owned(), active: true };
            let body = body_of(&name, &person);
            after.people.insert(name, person);
            return (Method::POST, "/Users".to_owned(), Some(body), after);
        }
        let at = self.random.below(count);
        let name = after.people.keys().nth(at).expect("a person").clone();
        let person = after.people.get_mut(&name).expect("the person");
        let id = person.id.clone().expect("an id");
        let path = format!("/Users/{id}");
        match choice {
            0..=3 => {
                after.people.remove(&name);
                after.members.remove(&name);
                (Method::DELETE, path, None, after)
            }
            4..=5 => {
                person.title = format!("put {}", self.random.below(1_000_000));
                let body = body_of(&name, person);
                (Method::PUT, path, Some(body), after)
            }
            6..=7 => {
                person.title = format!("patched {}", self.random.below(1_000_000));
                person.active = !person.active;
                let body = patch(&json!({"op": "replace", "value": {"title": person.title, "active": person.active}}));
                (Method::PATCH, path, Some(body), after)
            }
            _ => {
                let operation = if after.members.remove(&name) {
                    json!({"op": "remove", "path": format!("members[value eq \"{id}\"]")})
                } else {
                    after.members.insert(name);
                    json!({"op": "add", "path": "members", "value": [{"value": id}]})
                };
                (Method::PATCH, format!("/Groups/{}", self.group), Some(patch(&operation)), after)
            }
        }
    }

    /// Writes until a request has no answer. Counts the answers.
    async fn write(mut self, scim: Scim, answers: Arc<AtomicUsize>) -> Self {
        loop {
            let (method, path, body, after) = self.next();
            self.pending = Some(after);
            let what = format!("{method} {path}");
            let mut request =
                scim.http.request(method.clone(), format!("{}{path}", scim.base)).bearer_auth(&scim.token);
            if let Some(body) = body {
                request = request.header("content-type", "application/scim+json").body(body.to_string());
            }
            let Ok(answer) = request.send().await else { return self };
            let status = answer.status();
            assert!(status.is_success(), "{what}: {status}");
            // The status is the promise. Without the body, the id of a new person is learned from the next list.
            let body: Option<Value> = answer.json().await.ok();
            self.known = self.pending.take().expect("the state after the request");
            answers.fetch_add(1, Ordering::SeqCst);
            if method == Method::POST {
                let id = body.as_ref().and_then(|body| body["id"].as_str());
                let Some(id) = id else { return self };
                let name = format!("c{}-{}@example.com", self.number, self.created);
                self.known.people.get_mut(&name).expect("the new person").id = Some(id.to_owned());
            }
        }
    }

    /// Compares with what is stored, and goes on from there.
    fn compare(&mut self, stored: State) -> Result<(), String> {
        let pending = self.pending.take();
        if stored != self.known && pending.as_ref() != Some(&stored) {
            let (number, known) = (self.number, &self.known);
            return Err(format!("client {number}:\nanswered {known:?}\nor       {pending:?}\nstored   {stored:?}"));
        }
        self.known = stored;
        Ok(())
    }
}

fn body_of(name: &str, person: &Person) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "title": person.title,
        "active": person.active})
}

fn patch(operation: &Value) -> Value {
    json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]})
}

/// The fixture, and the folder with what is durable.
struct Machine {
    fixture: Fixture,
    durable: PathBuf,
    scim: Scim,
}

impl Machine {
    async fn prepare() -> Self {
        let mut fixture = Fixture::prepare(&base()).await;
        let library = fixture.folder.path().join("power_loss.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/power/power_loss.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-pthread", "-o"]);
        let status = compiler.arg(&library).arg(source).status().expect("a C compiler");
        assert!(status.success(), "power_loss.c does not compile");
        let durable = fixture.folder.path().join("durable");
        std::fs::create_dir(&durable).expect("a folder");
        fixture.environment = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("POWER_LOSS_DATABASE", fixture.database.display().to_string()),
            ("POWER_LOSS_DURABLE", durable.display().to_string()),
        ];
        fixture.more.push(("--requests-per-second", "100000".to_owned()));
        let scim = fixture.scim("okta", TOKEN);
        Self { fixture, durable, scim }
    }

    /// Starts the binary and waits until SCIM answers.
    async fn start(&mut self) {
        self.fixture.spawn();
        let url = format!("{}/Users?count=0", self.scim.base);
        eventually("SCIM answers", async || {
            match self.scim.http.get(&url).bearer_auth(&self.scim.token).send().await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(format!("{}; log:\n{}", answer.status(), tail(&self.fixture.log()))),
                Err(error) => Err(format!("{error}; log:\n{}", tail(&self.fixture.log()))),
            }
        })
        .await;
    }

    /// Kills the process, and leaves of the database what was synced.
    fn lose_power(&mut self) {
        self.fixture.kill();
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let file = format!("{}{suffix}", self.fixture.database.display());
            let synced = self.durable.join(Path::new(&file).file_name().expect("a name"));
            let _ = std::fs::remove_file(&file);
            if synced.exists() {
                std::fs::copy(synced, file).expect("put back what was synced");
            }
        }
    }

    async fn clients(&self) -> Vec<Client> {
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let group = self.scim.create_group(&format!("group-{number}"), &[]).await;
            let random = Random(0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1));
            clients.push(Client { number, group, known: State::default(), pending: None, random, created: 0 });
        }
        clients
    }

    /// Lets all clients write, ends the process after so many answers, and returns the clients with the number of answers.
    async fn load(&mut self, clients: Vec<Client>, answers: usize) -> (Vec<Client>, usize) {
        let counter = Arc::new(AtomicUsize::new(0));
        let running: Vec<_> = clients
            .into_iter()
            .map(|client| tokio::spawn(client.write(self.scim.clone(), Arc::clone(&counter))))
            .collect();
        eventually("enough answers", async || {
            let count = counter.load(Ordering::SeqCst);
            let ended = running.iter().any(tokio::task::JoinHandle::is_finished);
            if count >= answers || ended { Ok(()) } else { Err(format!("{count} of {answers}")) }
        })
        .await;
        self.lose_power();
        let mut clients = Vec::new();
        for one in running {
            clients.push(one.await.expect("a client whose requests were all accepted"));
        }
        (clients, counter.load(Ordering::SeqCst))
    }

    /// Everything that is stored, for each client.
    async fn stored(&self, clients: &[Client]) -> Vec<State> {
        let mut found = vec![State::default(); clients.len()];
        let mut names = BTreeMap::new();
        let mut start = 1;
        loop {
            let (status, page) = self.scim.send(Method::GET, &format!("/Users?startIndex={start}"), None).await;
            assert_eq!(status, 200, "{page}");
            let people = page["Resources"].as_array().expect("a list");
            for person in people {
                let text = |field: &str| person[field].as_str().expect("a text").to_owned();
                let (name, id) = (text("userName"), text("id"));
                let number = name[1..].split('-').next().and_then(|number| number.parse::<usize>().ok());
                names.insert(id.clone(), name.clone());
                let person = Person { id: Some(id), title: text("title"), active: person["active"] == true };
                found[number.expect("a number")].people.insert(name, person);
            }
            start += people.len();
            if people.is_empty() || start > usize::try_from(page["totalResults"].as_u64().expect("a number")).unwrap() {
                break;
            }
        }
        for (client, state) in clients.iter().zip(&mut found) {
            let (status, group) = self.scim.send(Method::GET, &format!("/Groups/{}", client.group), None).await;
            assert!(status == 200 || status == 404, "{group}");
            let members = group["members"].as_array().into_iter().flatten();
            state.members = members.map(|member| names[member["value"].as_str().expect("an id")].clone()).collect();
        }
        found
    }

    /// The first client whose answers are not what is stored.
    async fn compare(&self, clients: &mut [Client]) -> Result<(), String> {
        let stored = self.stored(clients).await;
        clients.iter_mut().zip(stored).try_for_each(|(client, stored)| client.compare(stored))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_was_answered_is_there_after_each_of_52_losses_of_power() {
    let mut machine = Machine::prepare().await;
    machine.start().await;
    let mut clients = machine.clients().await;
    let (mut random, mut total, mut unanswered) = (Random(0x2545_F491_4F6C_DD1D), 0, 0);
    for kill in 0..KILLS {
        let wanted = 1 + random.below(80);
        let (after, answers) = machine.load(clients, wanted).await;
        clients = after;
        total += answers;
        unanswered += clients.iter().filter(|client| client.pending.is_some()).count();
        if kill % 10 == 9 {
            // Power fails again while the process starts.
            machine.fixture.spawn();
            tokio::time::sleep(Duration::from_millis(20 + u64::try_from(random.below(150)).unwrap())).await;
            machine.lose_power();
        }
        machine.start().await;
        if let Err(loss) = machine.compare(&mut clients).await {
            panic!("lost by kill {kill}: {loss}");
        }
    }
    assert!(total >= KILLS, "{total} answers");
    println!(
        "measured: {KILLS} losses of power, {total} requests answered and all stored, {unanswered} without an answer"
    );
    machine.fixture.agree().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn losses_are_noticed_when_syncs_do_nothing() {
    let mut machine = Machine::prepare().await;
    machine.start().await;
    let clients = machine.clients().await;
    let (mut clients, _) = machine.load(clients, 40).await;
    machine.start().await;
    assert_eq!(machine.compare(&mut clients).await, Ok(()));
    machine.lose_power();
    // As with `synchronous=OFF`.
    machine.fixture.environment.push(("POWER_LOSS_LIES", "1".to_owned()));
    machine.start().await;
    let (mut clients, answers) = machine.load(clients, 40).await;
    assert!(answers >= 40, "{answers}");
    machine.start().await;
    let loss = machine.compare(&mut clients).await;
    assert!(loss.is_err(), "{answers} requests were answered and never synced, and nothing is missing");
}
