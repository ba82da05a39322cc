//! The fixture: the emulator in this process, the real binary as a child, a SCIM client, and a folder of manifests.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use crate::common::*;

pub(crate) struct Fixture {
    pub(crate) google: Google,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) scim_url: String,
    pub(crate) admin_url: String,
    pub(crate) drift: String,
    pub(crate) mode: String,
    pub(crate) database: PathBuf,
    /// Additional flags of `run`, with their values.
    pub(crate) more: Vec<(&'static str, String)>,
    /// Variables of the environment of `run`.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Passes all flags in the environment.
    pub(crate) in_environment: bool,
    /// Largest size of a file, in KiB, which simulates a full disk.
    pub(crate) file_limit: Option<u32>,
    child: Option<Child>,
    /// The process that was running when [`Fixture::run_another`] was called.
    first: Option<Child>,
    listen: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.kill();
        self.child = self.first.take();
        self.kill();
    }
}

impl Deref for Fixture {
    type Target = Google;

    fn deref(&self) -> &Google {
        &self.google
    }
}

impl Fixture {
    /// Starts the emulator and writes the manifests, without starting rolecall.
    pub(crate) async fn prepare(manifests: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let google = Google::start(folder.path().join("rolecall.log")).await;
        std::fs::create_dir(folder.path().join("manifests")).expect("a folder for manifests");
        let (listen, admin) = (free_port(), free_port());
        let fixture = Self {
            google,
            scim_url: format!("http://{listen}"),
            admin_url: format!("http://{admin}"),
            drift: "1s".to_owned(),
            mode: "enforce".to_owned(),
            database: folder.path().join("rolecall.db"),
            folder,
            more: Vec::new(),
            environment: Vec::new(),
            in_environment: false,
            file_limit: None,
            child: None,
            first: None,
            listen,
            admin,
        };
        for (file, text) in manifests {
            fixture.write(file, text);
        }
        fixture
    }

    /// Like [`Fixture::prepare`], with rolecall started and ready.
    pub(crate) async fn start(manifests: &[(&str, String)]) -> Self {
        let mut fixture = Self::prepare(manifests).await;
        fixture.run().await;
        fixture
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.path().join("manifests")
    }

    /// Writes a manifest the way editors and Git do: next to the file, then renamed over it.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.manifests().join(file);
        let part = self.manifests().join(format!(".{file}.part"));
        std::fs::write(&part, text).expect("write a manifest");
        std::fs::rename(&part, &path).expect("put a manifest in place");
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.manifests().join(file)).expect("remove a manifest");
    }

    /// Starts the binary and waits until it is ready.
    pub(crate) async fn run(&mut self) {
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
    pub(crate) fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.google.log).expect("a log file");
        let mut flags = vec![
            ("--listen", self.listen.to_string()),
            ("--admin-listen", self.admin.to_string()),
            ("--database", format!("sqlite:{}", self.database.display())),
            ("--manifests", self.manifests().display().to_string()),
            ("--google-endpoint", self.google.url.clone()),
            ("--google-credentials", "none".to_owned()),
            ("--drift-interval", self.drift.clone()),
            ("--mode", self.mode.clone()),
        ];
        flags.extend(self.more.clone());
        let binary = env!("CARGO_BIN_EXE_rolecall");
        let mut command = match self.file_limit {
            None => Command::new(binary),
            Some(kib) => {
                // Exceeding the limit has to be an error for the writer, like ENOSPC, and not a signal.
                let mut shell = Command::new("bash");
                shell.args(["-c", "trap '' XFSZ; ulimit -S -f \"$1\"; shift; exec \"$@\"", "bash"]);
                shell.arg(kib.to_string()).arg(binary);
                shell
            }
        };
        command.arg("run").envs(self.environment.iter().cloned());
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

    /// The process id of the running binary.
    pub(crate) fn process(&self) -> u32 {
        self.child.as_ref().expect("rolecall runs").id()
    }

    /// Ends the simulation of a full disk.
    pub(crate) fn lift_file_limit(&mut self) {
        self.file_limit = None;
        let child = self.child.as_ref().expect("rolecall runs");
        let status = Command::new("prlimit").args(["--pid", &child.id().to_string(), "--fsize=unlimited:"]).status();
        assert!(status.expect("prlimit").success());
    }

    /// Runs the binary to its end: exit status, standard output, standard error.
    pub(crate) fn rolecall(arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_rolecall")).args(arguments).output().expect("run a verb");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts a second process on the database and manifests of the running one. From then on this is the fixture of
    /// the second.
    pub(crate) async fn run_another(&mut self) {
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

    pub(crate) fn suspend(&self) {
        Self::signal(self.child.as_ref(), "-STOP");
    }

    pub(crate) fn resume_first(&self) {
        Self::signal(self.first.as_ref(), "-CONT");
    }

    /// Waits until the first process has ended; returns its exit status.
    pub(crate) async fn first_ends(&mut self) -> Option<i32> {
        let mut first = self.first.take().expect("a first process");
        let status = eventually("the first process ends", async || match first.try_wait() {
            Ok(Some(status)) => Ok(status),
            other => Err(format!("{other:?}")),
        });
        status.await.code()
    }

    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.run().await;
    }

    /// The status object of one resource, as the admin port serves it.
    pub(crate) async fn status(&self, kind: &str, name: &str) -> Value {
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

    /// Waits until `check` accepts the status of a mapping.
    pub(crate) async fn target_status(&self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("shop-dev: {what}"), async || {
            let status = self.status("CloudRunTarget", "shop-dev").await;
            if check(&status) { Ok(status) } else { Err(format!("{status:#}; log:\n{}", tail(&self.log()))) }
        })
        .await
    }

    pub(crate) async fn mapping_status(&self, name: &str, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name}: {what}"), async || {
            let status = self.status("RoleMapping", name).await;
            if check(&status) { Ok(status) } else { Err(format!("{status:#}; log:\n{}", tail(&self.log()))) }
        })
        .await
    }

    /// The progress of the running process.
    pub(crate) fn progress(&self) -> Progress {
        Progress { admin_url: self.admin_url.clone(), http: self.http.clone() }
    }

    /// Checks that the members of `role` on `service` are exactly these, and stay so when rolecall has done what there is
    /// to do. Unless the test has policies read rarely, everything is read again until then.
    pub(crate) async fn members_stay(&self, service: &str, role: &str, members: &[&str]) {
        self.members_are(service, role, members).await;
        if self.drift == "1s" {
            self.progress().settled_and_read().await;
        } else {
            self.progress().settled().await;
        }
        self.members_are(service, role, members).await;
    }

    /// Waits until `check` accepts the status of the target `shop-dev`.
    pub(crate) async fn status_of_target(&self, what: &str, check: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("shop-dev: {what}"), async || {
            let status = self.status("CloudRunTarget", "shop-dev").await;
            if check(&status) { Ok(status) } else { Err(format!("{status:#}; log:\n{}", tail(&self.log()))) }
        })
        .await
    }

    pub(crate) fn scim(&self, provider: &str, token: &str) -> Scim {
        Scim {
            base: format!("{}/idp/{provider}/scim/v2", self.scim_url),
            token: token.to_owned(),
            http: self.http.clone(),
        }
    }
}

impl Fixture {
    /// Sends SIGTERM and waits for a clean end.
    pub(crate) async fn shutdown(&mut self) {
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
    pub(crate) async fn restart_unready(&mut self) {
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

    /// Runs a command of the binary against this fixture's database and folder.
    pub(crate) fn command(&self, arguments: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_rolecall"))
            .args(arguments)
            .args(["--database", &format!("sqlite:{}", self.database.display())])
            .output()
            .expect("run a verb");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}; log:\n{}", tail(&self.log()));
    }

    pub(crate) fn store_accept(&self) {
        let folder = self.manifests().display().to_string();
        self.command(&["store", "accept", "--manifests", &folder]);
    }

    pub(crate) fn copy_database(&self, to: &Path) {
        for suffix in ["", "-wal", "-shm"] {
            let from = PathBuf::from(format!("{}{suffix}", self.database.display()));
            if from.exists() {
                std::fs::copy(&from, to.join(format!("db{suffix}"))).expect("copy the database");
            }
        }
    }

    pub(crate) fn restore_database(&self, from: &Path) {
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

impl Fixture {
    /// Stops rolecall and checks that ledger, policies and audit agree.
    pub(crate) async fn agree(&mut self) {
        self.shutdown().await;
        agree(&self.google, &self.database).await;
    }
}

/// Sets a switch of the emulator.
pub(crate) fn switch(fixture: &Fixture, method: &str, path: &str, body: &Value) {
    fixture.emulator.control(method, path, body).unwrap_or_else(|error| panic!("{method} {path} {body}: {error:?}"));
}
