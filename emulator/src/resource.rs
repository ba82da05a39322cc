//! Names: projects by id or number, Cloud Run resources, and targets with a policy.

use std::collections::HashMap;
use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The kinds of Cloud Run resource that have an IAM policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Service,
    Job,
    WorkerPool,
    Instance,
}

impl Kind {
    /// Parses the collection segment; `workerpools` (v1) and `workerPools` (v2) are the same.
    pub(crate) fn from_collection(segment: &str) -> Option<Self> {
        match segment {
            "services" => Some(Self::Service),
            "jobs" => Some(Self::Job),
            "workerPools" | "workerpools" => Some(Self::WorkerPool),
            "instances" => Some(Self::Instance),
            _ => None,
        }
    }

    /// The collection in v2 paths and bodies.
    pub(crate) fn collection(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Job => "jobs",
            Self::WorkerPool => "workerPools",
            Self::Instance => "instances",
        }
    }

    /// The query parameter with the name of a new resource.
    pub(crate) fn id_parameter(self) -> &'static str {
        match self {
            Self::Service => "serviceId",
            Self::Job => "jobId",
            Self::WorkerPool => "workerPoolId",
            Self::Instance => "instanceId",
        }
    }

    /// The message name, and the Knative kind.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Job => "Job",
            Self::WorkerPool => "WorkerPool",
            Self::Instance => "Instance",
        }
    }

    /// The word in not-found texts; only `SERVICE` was observed.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Service => "SERVICE",
            Self::Job => "JOB",
            Self::WorkerPool => "WORKERPOOL",
            Self::Instance => "INSTANCE",
        }
    }

    /// The noun in permissions: `run.{noun}.get` and so on.
    pub(crate) fn permission_noun(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::Job => "jobs",
            Self::WorkerPool => "workerpools",
            Self::Instance => "instances",
        }
    }
}

/// One Cloud Run resource, however it was named in the request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourceKey {
    /// Project number.
    pub(crate) project: u64,
    pub(crate) location: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

/// A target with a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Run(ResourceKey),
    Project(u64),
    /// `iap_web…` under a project.
    Iap {
        project: u64,
        rest: String,
    },
    ServiceAccount {
        project: u64,
        email: String,
    },
}

impl Target {
    pub(crate) fn project(&self) -> u64 {
        match self {
            Self::Run(key) => key.project,
            Self::Project(project) | Self::Iap { project, .. } | Self::ServiceAccount { project, .. } => *project,
        }
    }
}

/// A Cloud Run resource that exists.
#[derive(Debug, Clone)]
pub(crate) struct Resource {
    /// Sequence number of the creation; lists show the newest first.
    pub(crate) seq: u64,
    pub(crate) uid: String,
    pub(crate) generation: u64,
    pub(crate) created: jiff::Timestamp,
    pub(crate) updated: jiff::Timestamp,
    /// Fields that the client may set: labels, template, `invokerIamDisabled`…
    pub(crate) fields: Map<String, Value>,
}

/// A project; it exists as soon as a request names it.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) id: String,
    pub(crate) number: u64,
}

/// Ids and numbers of the known projects.
#[derive(Debug, Default)]
pub(crate) struct Projects {
    by_id: HashMap<String, u64>,
    by_number: HashMap<u64, String>,
}

impl Projects {
    /// The project with this id or number; `None` if the name can be neither.
    pub(crate) fn resolve(&mut self, name: &str) -> Option<u64> {
        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
            let number: u64 = name.parse().ok()?;
            if !self.by_number.contains_key(&number) {
                self.register(&format!("project-{number}"), number);
            }
            return Some(number);
        }
        if let Some(&number) = self.by_id.get(name) {
            return Some(number);
        }
        if !is_project_id(name) {
            return None;
        }
        let mut number = number_for(name);
        // A number that was used before its id belongs to that id; two ids never share one.
        while self.by_number.get(&number).is_some_and(|id| *id != format!("project-{number}")) {
            number += 1;
        }
        self.register(name, number);
        Some(number)
    }

    /// Declares a project with a given number. Fails when id or number belong to another project.
    pub(crate) fn declare(&mut self, id: &str, number: u64) -> Result<(), String> {
        match (self.by_id.get(id), self.by_number.get(&number)) {
            (Some(&known), _) if known != number => Err(format!("project `{id}` already has the number {known}")),
            (_, Some(known)) if known != id => Err(format!("number {number} already belongs to project `{known}`")),
            _ if !is_project_id(id) => Err(format!("`{id}` is not a project id")),
            _ => {
                self.register(id, number);
                Ok(())
            }
        }
    }

    fn register(&mut self, id: &str, number: u64) {
        self.by_id.insert(id.to_owned(), number);
        self.by_number.insert(number, id.to_owned());
    }

    /// The id of a known project.
    pub(crate) fn id(&self, number: u64) -> &str {
        self.by_number.get(&number).map_or("unknown", String::as_str)
    }

    pub(crate) fn all(&self) -> Vec<Project> {
        let mut all: Vec<_> = self.by_number.iter().map(|(&number, id)| Project { id: id.clone(), number }).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

fn is_project_id(name: &str) -> bool {
    let id = name.rsplit_once(':').map_or(name, |(_, id)| id);
    id.len() <= 63
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Twelve digits derived from the id alone, so that they are the same after restarts and in every run.
fn number_for(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    let mut bytes = [0u8; 8];
    bytes.copy_from_slice(&digest[..8]);
    100_000_000_000 + u64::from_be_bytes(bytes) % 900_000_000_000
}

/// A region, or `-` for all.
pub(crate) fn is_location(name: &str) -> bool {
    name == "-"
        || (name.len() <= 63
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
}

/// Checks a name: lower-case letters, digits and hyphens, starting with a letter, not ending with a hyphen, at most 63.
pub(crate) fn is_resource_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

impl Projects {
    /// The v2 name of a resource.
    pub(crate) fn name_of(&self, key: &ResourceKey) -> String {
        format!("projects/{}/locations/{}/{}/{}", self.id(key.project), key.location, key.kind.collection(), key.name)
    }

    /// The canonical name of a target.
    pub(crate) fn target_name(&self, target: &Target) -> String {
        match target {
            Target::Run(key) => self.name_of(key),
            Target::Project(project) => format!("projects/{}", self.id(*project)),
            Target::Iap { project, rest } => format!("projects/{project}/{rest}"),
            Target::ServiceAccount { project, email } => {
                format!("projects/{}/serviceAccounts/{email}", self.id(*project))
            }
        }
    }

    /// Parses `projects/P/locations/L/services/S`, `projects/P`, `projects/P/iap_web/…` and
    /// `projects/P/serviceAccounts/EMAIL`.
    pub(crate) fn target(&mut self, name: &str) -> Option<Target> {
        let name = name.trim_start_matches('/');
        let mut parts = name.splitn(3, '/');
        if parts.next() != Some("projects") {
            return None;
        }
        let project = self.resolve(parts.next()?)?;
        let Some(rest) = parts.next() else { return Some(Target::Project(project)) };
        let segments: Vec<&str> = rest.split('/').collect();
        match segments.as_slice() {
            ["locations", location, collection, name] => {
                let kind = Kind::from_collection(collection)?;
                (is_location(location) && !name.is_empty()).then(|| {
                    Target::Run(ResourceKey {
                        project,
                        location: (*location).to_owned(),
                        kind,
                        name: (*name).to_owned(),
                    })
                })
            }
            ["iap_web", rest @ ..] if rest.iter().all(|segment| !segment.is_empty()) => {
                Some(Target::Iap { project, rest: segments.join("/") })
            }
            ["serviceAccounts", email] if email.contains('@') => {
                Some(Target::ServiceAccount { project, email: (*email).to_owned() })
            }
            ["iap_tunnel", ..] => Some(Target::Iap { project, rest: segments.join("/") }),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_and_number_name_one_project() {
        let mut projects = Projects::default();
        let number = projects.resolve("demo-project").unwrap();
        assert_eq!(projects.resolve(&number.to_string()), Some(number));
        assert_eq!(projects.id(number), "demo-project");
        assert_eq!(number.to_string().len(), 12);
    }

    #[test]
    fn number_named_first_takes_the_id_that_leads_to_it() {
        let number = Projects::default().resolve("demo-project").unwrap();
        let mut projects = Projects::default();
        assert_eq!(projects.resolve(&number.to_string()), Some(number));
        assert_eq!(projects.resolve("demo-project"), Some(number));
        assert_eq!(projects.id(number), "demo-project");
    }

    #[test]
    fn v1_and_v2_spellings_lead_to_one_target() {
        let mut projects = Projects::default();
        let one = projects.target("projects/demo/locations/eu/workerpools/w");
        assert!(one.is_some());
        assert_eq!(one, projects.target("projects/demo/locations/eu/workerPools/w"));
    }
}
