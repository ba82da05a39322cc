//! The emulator as Google, and foreign edits of policies.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{PATIENCE, eventually, tail};

/// Role → members of one policy.
pub(crate) type Bindings = BTreeMap<String, BTreeSet<String>>;

/// The emulator in this process.
pub(crate) struct Google {
    pub(crate) emulator: rolecall_emulator::Emulator,
    /// Base of all its APIs.
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    /// Log file of rolecall; its end is shown when a policy does not become what it should.
    pub(crate) log: PathBuf,
}

impl Google {
    pub(crate) async fn start(log: PathBuf) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let emulator = rolecall_emulator::start("127.0.0.1:0".parse().expect("an address")).await.expect("emulator");
        Self {
            url: emulator.url(),
            emulator,
            http: reqwest::Client::builder().timeout(PATIENCE).build().expect("a client"),
            log,
        }
    }

    /// The log of rolecall so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Creates services through Cloud Run's v2 API.
    pub(crate) async fn create_services(&self, project: &str, names: &[&str]) {
        for name in names {
            let url = format!("{}/v2/projects/{project}/locations/europe-west1/services?serviceId={name}", self.url);
            let body = json!({"template": {"containers": [{"image": "example/image"}]}});
            let answer = self.http.post(url).json(&body).send().await.expect("create a service");
            assert!(answer.status().is_success(), "create {name}: {}", answer.status());
        }
    }

    fn policy_url(&self, service: &str, verb: &str) -> String {
        format!("{}/v2/projects/shop-dev/locations/europe-west1/services/{service}:{verb}", self.url)
    }

    /// The raw policy of a service of project `shop-dev`.
    pub(crate) async fn raw_policy(&self, service: &str) -> Value {
        let url = format!("{}?options.requestedPolicyVersion=3", self.policy_url(service, "getIamPolicy"));
        self.http.get(url).send().await.expect("read a policy").json().await.expect("a policy")
    }

    /// Role → members; bindings with a condition are keyed `ROLE if TITLE`.
    pub(crate) async fn policy(&self, service: &str) -> Bindings {
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

    /// Simulates a careful foreign edit of a policy (with the etag).
    pub(crate) async fn edit_policy(&self, service: &str, edit: impl Fn(&mut Vec<Value>)) {
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

    pub(crate) async fn stranger_adds(&self, service: &str, role: &str, member: &str) {
        self.edit_policy(service, |bindings| {
            match bindings.iter_mut().find(|b| b["role"] == role && b.get("condition").is_none()) {
                Some(binding) => binding["members"].as_array_mut().expect("members").push(json!(member)),
                None => bindings.push(json!({"role": role, "members": [member]})),
            }
        })
        .await;
    }

    pub(crate) async fn stranger_removes(&self, service: &str, role: &str, member: &str) {
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
    pub(crate) async fn members_become(&self, service: &str, role: &str, members: &[&str]) {
        let wanted: BTreeSet<String> = members.iter().map(|&m| m.to_owned()).collect();
        eventually(&format!("{role} on {service} = {wanted:?}"), async || {
            let seen = self.policy(service).await.remove(role).unwrap_or_default();
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}; log:\n{}", tail(&self.log()))) }
        })
        .await;
    }

    /// Checks that the members of `role` on `service` are exactly these.
    pub(crate) async fn members_are(&self, service: &str, role: &str, members: &[&str]) {
        let wanted: BTreeSet<String> = members.iter().map(|&m| m.to_owned()).collect();
        let seen = self.policy(service).await.remove(role).unwrap_or_default();
        assert_eq!(seen, wanted, "{role} on {service}; log:\n{}", tail(&self.log()));
    }

    /// Makes an account unknown to Google, so that every policy that names it is refused as a whole.
    pub(crate) fn unknown_to_google(&self, member: &str) {
        self.emulator.control("POST", "directory/delete", &json!({"member": member})).expect("an account that is gone");
    }

    /// Injects faults through the emulator's control API.
    pub(crate) async fn fault(&self, fault: Value) {
        let url = format!("{}/__emulator/faults", self.url);
        let answer = self.http.post(url).json(&fault).send().await.expect("inject a fault");
        assert!(answer.status().is_success(), "fault: {} {}", answer.status(), answer.text().await.unwrap_or_default());
    }

    /// Number of calls affected by the active faults, whether the calls took effect or not.
    pub(crate) async fn faults_fired(&self) -> u64 {
        let url = format!("{}/__emulator/faults", self.url);
        let listed: Value = self.http.get(url).send().await.expect("faults").json().await.expect("JSON");
        let faults = listed["faults"].as_array().or(listed.as_array()).expect("a list").clone();
        faults.iter().filter_map(|fault| fault["fired"].as_u64()).sum()
    }

    pub(crate) async fn clear_faults(&self) {
        let url = format!("{}/__emulator/faults", self.url);
        self.http.delete(url).send().await.expect("clear faults");
    }

    /// Number of writes of this service's policy that reached the emulator.
    pub(crate) fn emulator_writes(&self, service: &str) -> usize {
        self.emulator.count("POST", &format!("/services/{service}:setIamPolicy"))
    }
}
