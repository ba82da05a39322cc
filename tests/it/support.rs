//! One running world: the emulator in this process, the real binary as a child, a SCIM client, a folder of manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a step may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `probe` until it answers `Ok`, and panics with its last complaint when patience ends.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(complaint) if Instant::now() > deadline => panic!("never seen: {what}; last: {complaint}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Checks that `probe` holds now and keeps holding for `span`.
pub async fn always(what: &str, span: Duration, mut probe: impl AsyncFnMut() -> Result<(), String>) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        if let Err(complaint) = probe().await {
            panic!("did not hold: {what}; {complaint}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port on loopback")
}

/// Role → members of one policy.
pub type Bindings = BTreeMap<String, BTreeSet<String>>;

pub struct World {
    pub emulator: rolecall_emulator::Emulator,
    pub google: String,
    pub folder: tempfile::TempDir,
    pub scim_url: String,
    pub admin_url: String,
    pub http: reqwest::Client,
    pub drift: String,
    pub mode: String,
    pub database: PathBuf,
    /// More flags of `run`, with their values.
    pub more: Vec<(&'static str, String)>,
    /// Say all flags in the environment.
    pub in_environment: bool,
    /// No file may grow beyond this, in KiB: a full disk for whoever writes more.
    pub file_limit: Option<u32>,
    child: Option<Child>,
    /// The process that [`World::run_another`] was started beside.
    first: Option<Child>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill();
        self.child = self.first.take();
        self.kill();
    }
}

impl World {
    /// The emulator runs, the manifests are written, rolecall is not started yet.
    pub async fn prepare(manifests: &[(&str, String)]) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let emulator = rolecall_emulator::start("127.0.0.1:0".parse().expect("an address")).await.expect("emulator");
        let google = format!("http://{}", emulator.addr);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("manifests")).expect("a folder for manifests");
        let (listen, admin) = (free_port(), free_port());
        let world = Self {
            emulator,
            google,
            scim_url: format!("http://{listen}"),
            admin_url: format!("http://{admin}"),
            http: reqwest::Client::builder().timeout(Duration::from_secs(20)).build().expect("a client"),
            drift: "1s".to_owned(),
            mode: "enforce".to_owned(),
            database: folder.path().join("rolecall.db"),
            folder,
            more: Vec::new(),
            in_environment: false,
            file_limit: None,
            child: None,
            first: None,
            listen,
            admin,
        };
        for (file, text) in manifests {
            world.write(file, text);
        }
        world
    }

    /// As [`World::prepare`], with rolecall started and ready.
    pub async fn start(manifests: &[(&str, String)]) -> Self {
        let mut world = Self::prepare(manifests).await;
        world.run().await;
        world
    }

    pub fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// Writes a manifest the way editors and Git do: beside the file, then renamed over it.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.manifests().join(file);
        let part = self.manifests().join(format!(".{file}.part"));
        std::fs::write(&part, text).expect("write a manifest");
        std::fs::rename(&part, &path).expect("put a manifest in place");
    }

    pub fn remove(&self, file: &str) {
        std::fs::remove_file(self.manifests().join(file)).expect("remove a manifest");
    }

    /// Starts the binary and waits until it is ready.
    pub async fn run(&mut self) {
        self.spawn();
        let url = format!("{}/readyz", self.admin_url);
        eventually("rolecall ready", async || match self.http.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status(), answer.text().await.unwrap_or_default())),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// Starts the binary.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("rolecall.log"))
            .expect("a log file");
        let mut flags = vec![
            ("--listen", self.listen.to_string()),
            ("--admin-listen", self.admin.to_string()),
            ("--database", format!("sqlite:{}", self.database.display())),
            ("--manifests", self.manifests().display().to_string()),
            ("--google-endpoint", self.google.clone()),
            ("--google-credentials", "none".to_owned()),
            ("--drift-interval", self.drift.clone()),
            ("--mode", self.mode.clone()),
        ];
        flags.extend(self.more.clone());
        let binary = env!("CARGO_BIN_EXE_rolecall");
        let mut command = match self.file_limit {
            None => Command::new(binary),
            Some(kib) => {
                // What is beyond the limit is an error to the writer, as ENOSPC is, and not a signal.
                let mut shell = Command::new("bash");
                shell.args(["-c", "trap '' XFSZ; ulimit -S -f \"$1\"; shift; exec \"$@\"", "bash"]);
                shell.arg(kib.to_string()).arg(binary);
                shell
            }
        };
        command.arg("run");
        for (flag, value) in flags {
            if self.in_environment {
                let name = flag.trim_start_matches('-').replace('-', "_").to_uppercase();
                command.env(format!("ROLECALL_{name}"), value);
            } else {
                command.args([flag, &value]);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("start rolecall");
        self.child = Some(child);
    }

    /// The disk is not full any more.
    pub fn lift_file_limit(&mut self) {
        self.file_limit = None;
        let child = self.child.as_ref().expect("rolecall runs");
        let status = Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited:"]).status();
        assert!(status.expect("prlimit").success());
    }

    /// Runs the binary to its end: exit status, output, complaints.
    pub fn rolecall(arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_rolecall")).args(arguments).output().expect("run a verb");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a second process on the database and manifests of the running one. From here on this is the world of the
    /// second.
    pub async fn run_another(&mut self) {
        self.first = self.child.take();
        (self.listen, self.admin) = (free_port(), free_port());
        self.scim_url = format!("http://{}", self.listen);
        self.admin_url = format!("http://{}", self.admin);
        self.run().await;
    }

    fn signal(child: Option<&Child>, signal: &str) {
        let id = child.expect("rolecall runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    pub fn suspend(&self) {
        Self::signal(self.child.as_ref(), "-STOP");
    }

    pub fn resume_first(&self) {
        Self::signal(self.first.as_ref(), "-CONT");
    }

    /// Waits until the process that another was started beside has ended; answers its exit status.
    pub async fn first_ends(&mut self) -> Option<i32> {
        let mut first = self.first.take().expect("a first process");
        let status = eventually("the first process ends", async || match first.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        });
        status.await.code()
    }

    pub async fn restart(&mut self) {
        self.kill();
        self.run().await;
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("rolecall.log")).unwrap_or_default()
    }

    /// Creates services through Cloud Run's own v2 call.
    pub async fn create_services(&self, project: &str, names: &[&str]) {
        for name in names {
            let url = format!("{}/v2/projects/{project}/locations/europe-west1/services?serviceId={name}", self.google);
            let body = json!({"template": {"containers": [{"image": "example/image"}]}});
            let answer = self.http.post(url).json(&body).send().await.expect("create a service");
            assert!(answer.status().is_success(), "create {name}: {}", answer.status());
        }
    }

    fn policy_url(&self, service: &str, verb: &str) -> String {
        format!("{}/v2/projects/shop-dev/locations/europe-west1/services/{service}:{verb}", self.google)
    }

    /// The raw policy of a service of project `shop-dev`.
    pub async fn raw_policy(&self, service: &str) -> Value {
        let url = format!("{}?options.requestedPolicyVersion=3", self.policy_url(service, "getIamPolicy"));
        self.http.get(url).send().await.expect("read a policy").json().await.expect("a policy")
    }

    /// Role → members; bindings with a condition are keyed `ROLE if TITLE`.
    pub async fn policy(&self, service: &str) -> Bindings {
        let mut bindings = Bindings::new();
        for binding in self.raw_policy(service).await["bindings"].as_array().cloned().unwrap_or_default() {
            let mut role = binding["role"].as_str().expect("a role").to_owned();
            if let Some(title) = binding["condition"]["title"].as_str() {
                role = format!("{role} if {title}");
            }
            let members = binding["members"].as_array().cloned().unwrap_or_default();
            bindings.entry(role).or_default().extend(members.iter().filter_map(|m| m.as_str().map(str::to_owned)));
        }
        bindings
    }

    /// A stranger edits a policy by hand, carefully (with the etag).
    pub async fn edit_policy(&self, service: &str, edit: impl Fn(&mut Vec<Value>)) {
        eventually("a stranger's edit", async || {
            let mut policy = self.raw_policy(service).await;
            let mut bindings = policy["bindings"].as_array().cloned().unwrap_or_default();
            edit(&mut bindings);
            bindings.retain(|binding| binding["members"].as_array().is_some_and(|members| !members.is_empty()));
            policy["bindings"] = json!(bindings);
            policy["version"] = json!(3);
            let answer = self
                .http
                .post(self.policy_url(service, "setIamPolicy"))
                .json(&json!({"policy": policy}))
                .send()
                .await
                .map_err(|error| error.to_string())?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
    }

    pub async fn stranger_adds(&self, service: &str, role: &str, member: &str) {
        self.edit_policy(service, |bindings| {
            match bindings.iter_mut().find(|b| b["role"] == role && b.get("condition").is_none()) {
                Some(binding) => binding["members"].as_array_mut().expect("members").push(json!(member)),
                None => bindings.push(json!({"role": role, "members": [member]})),
            }
        })
        .await;
    }

    pub async fn stranger_removes(&self, service: &str, role: &str, member: &str) {
        self.edit_policy(service, |bindings| {
            for binding in bindings.iter_mut().filter(|b| b["role"] == role) {
                if let Some(members) = binding["members"].as_array_mut() {
                    members.retain(|m| m != member);
                }
            }
        })
        .await;
    }

    /// Waits until the members of `role` on `service` are exactly these.
    pub async fn members_become(&self, service: &str, role: &str, members: &[&str]) {
        let wanted: BTreeSet<String> = members.iter().map(|&m| m.to_owned()).collect();
        eventually(&format!("{role} on {service} = {wanted:?}"), async || {
            let seen = self.policy(service).await.remove(role).unwrap_or_default();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}; log:\n{}", tail(&self.log()))) }
        })
        .await;
    }

    /// Checks that the members of `role` on `service` are exactly these, now and for a while.
    pub async fn members_stay(&self, service: &str, role: &str, members: &[&str]) {
        let wanted: BTreeSet<String> = members.iter().map(|&m| m.to_owned()).collect();
        always(&format!("{role} on {service} = {wanted:?}"), Duration::from_millis(2500), async || {
            let seen = self.policy(service).await.remove(role).unwrap_or_default();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    /// The status object of one resource, as the admin port serves it.
    pub async fn status(&self, kind: &str, name: &str) -> Value {
        let url = format!("{}/status", self.admin_url);
        let list: Value = match self.http.get(url).send().await {
            Ok(answer) => answer.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        };
        let (namespace, name) = name.split_once('/').map_or((None, name), |(ns, name)| (Some(ns), name));
        list["items"]
            .as_array()
            .and_then(|items| {
                items.iter().find(|item| {
                    item["kind"] == kind
                        && item["metadata"]["name"] == name
                        && namespace.is_none_or(|ns| item["metadata"]["namespace"] == ns)
                })
            })
            .map_or(Value::Null, |item| item["status"].clone())
    }

    /// Waits until `check` finds nothing to complain about in a mapping's status.
    pub async fn mapping_status(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name}: {what}"), async || {
            let status = self.status("RoleMapping", name).await;
            if check(&status) { Ok(status) } else { Err(format!("{status:#}; log:\n{}", tail(&self.log()))) }
        })
        .await
    }

    /// Google does not know this account: a policy that names it is refused as a whole.
    pub fn unknown_to_google(&self, member: &str) {
        self.emulator.control("POST", "directory/delete", &json!({"member": member})).expect("an account that is gone");
    }

    /// Injects faults through the emulator's control API.
    pub async fn fault(&self, fault: Value) {
        let url = format!("{}/__emulator/faults", self.google);
        let answer = self.http.post(url).json(&fault).send().await.expect("inject a fault");
        assert!(answer.status().is_success(), "fault: {} {}", answer.status(), answer.text().await.unwrap_or_default());
    }

    /// How many calls were hit by the faults that are in force, whether they are done or not.
    pub async fn faults_fired(&self) -> u64 {
        let url = format!("{}/__emulator/faults", self.google);
        let listed: Value = self.http.get(url).send().await.expect("faults").json().await.expect("JSON");
        let faults = listed["faults"].as_array().or(listed.as_array()).expect("a list").clone();
        faults.iter().filter_map(|fault| fault["fired"].as_u64()).sum()
    }

    pub async fn clear_faults(&self) {
        let url = format!("{}/__emulator/faults", self.google);
        self.http.delete(url).send().await.expect("clear faults");
    }

    pub fn scim(&self, provider: &str, token: &str) -> Scim {
        Scim {
            base: format!("{}/idp/{provider}/scim/v2", self.scim_url),
            token: token.to_owned(),
            http: self.http.clone(),
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// The condition of that type, or null.
pub fn condition(status: &Value, kind: &str) -> Value {
    status["conditions"]
        .as_array()
        .and_then(|list| list.iter().find(|condition| condition["type"] == kind).cloned())
        .unwrap_or(Value::Null)
}

/// Is the condition of that type there with this status and reason?
pub fn has(status: &Value, kind: &str, value: &str, reason: &str) -> bool {
    let found = condition(status, kind);
    found["status"] == value && (reason.is_empty() || found["reason"] == reason)
}

/// A minimal IdP.
#[derive(Clone)]
pub struct Scim {
    pub base: String,
    pub token: String,
    pub http: reqwest::Client,
}

impl Scim {
    pub async fn send(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/scim+json").body(body.to_string());
        }
        let answer = request.send().await.expect("a SCIM answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn create_user(&self, user_name: &str) -> String {
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
            "userName": user_name,
            "externalId": format!("ext-{user_name}"),
            "active": true,
            "emails": [{"value": user_name, "type": "work", "primary": true}],
        });
        let (status, answer) = self.send(reqwest::Method::POST, "/Users", Some(body)).await;
        assert_eq!(status, 201, "create {user_name}: {answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    pub async fn create_group(&self, name: &str, members: &[&str]) -> String {
        let members: Vec<Value> = members.iter().map(|id| json!({"value": id})).collect();
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
            "displayName": name,
            "members": members,
        });
        let (status, answer) = self.send(reqwest::Method::POST, "/Groups", Some(body)).await;
        assert_eq!(status, 201, "create {name}: {answer}");
        answer["id"].as_str().expect("an id").to_owned()
    }

    async fn patch(&self, path: &str, operations: Value) {
        let body = json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations});
        let (status, answer) = self.send(reqwest::Method::PATCH, path, Some(body)).await;
        assert!(status == 200 || status == 204, "PATCH {path}: {status} {answer}");
    }

    pub async fn add_members(&self, group: &str, users: &[&str]) {
        let value: Vec<Value> = users.iter().map(|id| json!({"value": id})).collect();
        self.patch(&format!("/Groups/{group}"), json!([{"op": "add", "path": "members", "value": value}])).await;
    }

    pub async fn remove_member(&self, group: &str, user: &str) {
        let path = format!("members[value eq \"{user}\"]");
        self.patch(&format!("/Groups/{group}"), json!([{"op": "remove", "path": path}])).await;
    }

    pub async fn replace_members(&self, group: &str, users: &[&str]) {
        let value: Vec<Value> = users.iter().map(|id| json!({"value": id})).collect();
        self.patch(&format!("/Groups/{group}"), json!([{"op": "replace", "path": "members", "value": value}])).await;
    }

    pub async fn set_active(&self, user: &str, active: bool) {
        self.patch(&format!("/Users/{user}"), json!([{"op": "replace", "value": {"active": active}}])).await;
    }

    pub async fn delete(&self, path: &str) {
        let (status, answer) = self.send(reqwest::Method::DELETE, path, None).await;
        assert_eq!(status, 204, "DELETE {path}: {answer}");
    }
}

pub const INVOKER: &str = "roles/run.invoker";
pub const VIEWER: &str = "roles/run.viewer";
pub const TOKEN: &str = "scim-token-of-okta-0123456789abcdef";

/// The provider `okta` with its Secret, and the target `shop-dev`.
pub fn base() -> Vec<(&'static str, String)> {
    vec![("provider.yaml", provider("okta", TOKEN)), ("target.yaml", target(&["services/*"], &[INVOKER, VIEWER]))]
}

/// A provider and the Secret with its token.
pub fn provider(name: &str, token: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}-scim, namespace: rolecall-system}}\n\
         stringData: {{token: {token}}}\n---\n\
         apiVersion: rolecall.dev/v1alpha1\nkind: IdentityProvider\nmetadata: {{name: {name}}}\nspec:\n  \
         scim:\n    tokens: [{{name: a, secretRef: {{name: {name}-scim}}}}]\n  principals:\n    \
         allowedDomains: [example.com]\n    users: {{googleAccount: {{attribute: userName}}}}\n"
    )
}

/// The target `shop-dev`, which lets namespace `checkout` map these roles on these resources.
pub fn target(resources: &[&str], roles: &[&str]) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: CloudRunTarget\nmetadata: {{name: shop-dev}}\nspec:\n  \
         project: shop-dev\n  locations: [europe-west1]\n  discoveryInterval: 1s\n  allow:\n    \
         - namespaces: {{names: [checkout]}}\n      identityProviders: [okta, entra]\n      \
         resources: {resources:?}\n      roles: {roles:?}\n"
    )
}

/// A mapping in namespace `checkout`. `extra` is appended to the spec, one `  key: value` a line.
pub fn mapping(name: &str, group: &str, resources: &[&str], roles: &[&str], extra: &str) -> String {
    format!(
        "apiVersion: rolecall.dev/v1alpha1\nkind: RoleMapping\nmetadata:\n  name: {name}\n  namespace: checkout\nspec:\n  \
         subjects:\n    - identityProvider: okta\n      groups: [{{displayName: {group}}}]\n  grants:\n    \
         - target: {{name: shop-dev}}\n      resources: {resources:?}\n      roles: {roles:?}\n{extra}"
    )
}

impl World {
    /// How many writes of this service's policy reached the emulator.
    pub fn emulator_writes(&self, service: &str) -> usize {
        self.emulator.count("POST", &format!("/services/{service}:setIamPolicy"))
    }

    /// SIGTERM, and waits for a clean end.
    pub async fn shutdown(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
        assert!(status.success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().expect("wait") {
                assert!(status.success(), "a clean end, not {status}");
                return;
            }
            assert!(Instant::now() < deadline, "no end after SIGTERM");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills and starts without waiting for readiness, which a frozen start may not reach.
    pub async fn restart_unready(&mut self) {
        self.kill();
        self.spawn();
        let url = format!("{}/livez", self.admin_url);
        eventually("rolecall alive", async || match self.http.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }

    /// Runs a verb of the binary against this world's database and folder.
    pub fn command(&self, arguments: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_rolecall"))
            .args(arguments)
            .args(["--database", &format!("sqlite:{}", self.database.display())])
            .output()
            .expect("run a verb");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn store_accept(&self) {
        let folder = self.manifests().display().to_string();
        self.command(&["store", "accept", "--manifests", &folder]);
    }

    pub fn copy_database(&self, to: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let from = PathBuf::from(format!("{}{suffix}", self.database.display()));
            if from.exists() {
                std::fs::copy(&from, to.join(format!("db{suffix}"))).expect("copy the database");
            }
        }
    }

    pub fn restore_database(&self, from: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let to = PathBuf::from(format!("{}{suffix}", self.database.display()));
            let _ = std::fs::remove_file(&to);
            let backup = from.join(format!("db{suffix}"));
            if backup.exists() {
                std::fs::copy(&backup, &to).expect("restore the database");
            }
        }
    }
}

impl World {
    /// Stops rolecall and checks that ledger, policies and audit tell the same story.
    pub async fn agree(&mut self) {
        use rolecall::model::{AuditOutcome, DocumentKey, GrantState, MemberKey, SystemClock};
        self.shutdown().await;
        let url = format!("sqlite:{}", self.database.display());
        let store = rolecall::store::Store::open(&url, std::sync::Arc::new(SystemClock)).await.expect("the store");
        let rows = store.verify_audit_chain().await.expect("the audit chain holds");
        assert!(rows > 0, "something was audited");
        let mut owned_by_audit: BTreeMap<DocumentKey, BTreeSet<(String, MemberKey)>> = BTreeMap::new();
        let mut after = 0;
        loop {
            let page = store.audit_after(after, 1000).await.expect("audit rows");
            let Some(last) = page.last() else { break };
            after = last.seq;
            for row in &page {
                let (Some(document), Some(grant)) = (&row.entry.document, &row.entry.grant) else { continue };
                let key = (grant.role.to_string(), grant.member.clone());
                let owned = owned_by_audit.entry(document.clone()).or_default();
                let took_effect = matches!(row.entry.outcome, AuditOutcome::Acknowledged | AuditOutcome::Ambiguous);
                match row.entry.action.as_str() {
                    "grant" if took_effect => drop(owned.insert(key)),
                    "revoke" if took_effect => drop(owned.remove(&key)),
                    "lost" | "forget" => drop(owned.remove(&key)),
                    _ => {}
                }
            }
        }
        for (document, _) in store.ledger_documents().await.expect("documents") {
            let live = self.policy(document.name()).await;
            let mut owned = BTreeSet::new();
            for row in store.ledger(&document).await.expect("the ledger") {
                assert!(row.intent.is_none(), "{document}: an intent is left: {row:?}");
                let role = row.grant.role.to_string();
                let present =
                    live.get(&role).is_some_and(|members| members.iter().any(|m| MemberKey::of(m) == row.grant.member));
                if row.state == GrantState::Owned {
                    assert!(present, "{document}: owned and not in the policy: {:?}", row.grant);
                    owned.insert((role, row.grant.member.clone()));
                }
            }
            let audited = owned_by_audit.remove(&document).unwrap_or_default();
            assert_eq!(owned, audited, "{document}: ledger and audit differ");
        }
        for (document, owned) in owned_by_audit {
            assert!(owned.is_empty(), "{document}: the audit says owned, the ledger knows nothing: {owned:?}");
        }
    }
}
