//! Predefined roles for Cloud Run, IAP and projects.

use serde_json::{Value, json};

use crate::resource::Kind;

/// The kind of resource that a role is granted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GrantKind {
    Run(Kind),
    Iap,
    Project,
    ServiceAccount,
}

/// A predefined role.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) permissions: &'static [&'static str],
    on: &'static [On],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Services,
    Jobs,
    WorkerPools,
    Instances,
    Iap,
    Projects,
    ServiceAccounts,
}

const RUN: &[On] = &[On::Services, On::Jobs, On::WorkerPools, On::Instances, On::Projects];
const EVERYWHERE: &[On] =
    &[On::Services, On::Jobs, On::WorkerPools, On::Instances, On::Iap, On::Projects, On::ServiceAccounts];
const ACCOUNTS: &[On] = &[On::ServiceAccounts, On::Projects];
const VIEW: &[&str] = &[
    "run.services.get",
    "run.services.list",
    "run.services.getIamPolicy",
    "run.jobs.get",
    "run.jobs.list",
    "run.jobs.getIamPolicy",
    "run.workerpools.get",
    "run.workerpools.list",
    "run.workerpools.getIamPolicy",
    "run.instances.get",
    "run.instances.list",
    "run.instances.getIamPolicy",
    "run.executions.get",
    "run.executions.list",
    "run.operations.get",
    "run.locations.list",
];
const ADMIN: &[&str] = &["run.*"];
const DEVELOP: &[&str] = &[
    "run.services.get",
    "run.services.list",
    "run.services.create",
    "run.services.update",
    "run.services.delete",
    "run.services.getIamPolicy",
    "run.jobs.get",
    "run.jobs.list",
    "run.jobs.create",
    "run.jobs.update",
    "run.jobs.delete",
    "run.jobs.run",
    "run.jobs.runWithOverrides",
    "run.jobs.getIamPolicy",
    "run.workerpools.get",
    "run.workerpools.list",
    "run.workerpools.create",
    "run.workerpools.update",
    "run.workerpools.delete",
    "run.workerpools.getIamPolicy",
    "run.executions.get",
    "run.operations.get",
];
const IAM: &[&str] = &[
    "run.services.getIamPolicy",
    "run.services.setIamPolicy",
    "run.jobs.getIamPolicy",
    "run.jobs.setIamPolicy",
    "run.workerpools.getIamPolicy",
    "run.workerpools.setIamPolicy",
    "run.instances.getIamPolicy",
    "run.instances.setIamPolicy",
    "iap.webServices.getIamPolicy",
    "iap.webServices.setIamPolicy",
    "resourcemanager.projects.getIamPolicy",
    "resourcemanager.projects.setIamPolicy",
    "iam.serviceAccounts.getIamPolicy",
    "iam.serviceAccounts.setIamPolicy",
];

macro_rules! role {
    ($name:literal, $title:literal, $permissions:expr, $on:expr) => {
        Role { name: $name, title: $title, permissions: $permissions, on: $on }
    };
}

/// The table. `run.*`-style entries stand for all permissions with that prefix.
pub(crate) static TABLE: &[Role] = &[
    role!("roles/run.admin", "Cloud Run Admin", ADMIN, RUN),
    role!("roles/run.developer", "Cloud Run Developer", DEVELOP, RUN),
    role!("roles/run.invoker", "Cloud Run Invoker", &["run.routes.invoke", "run.jobs.run"], RUN),
    role!(
        "roles/run.servicesInvoker",
        "Cloud Run Service Invoker",
        &["run.routes.invoke"],
        &[On::Services, On::Projects]
    ),
    role!(
        "roles/run.jobsExecutor",
        "Cloud Run Jobs Executor",
        &["run.jobs.run", "run.executions.cancel"],
        &[On::Jobs, On::Projects]
    ),
    role!(
        "roles/run.jobsExecutorWithOverrides",
        "Cloud Run Jobs Executor With Overrides",
        &["run.jobs.run", "run.jobs.runWithOverrides", "run.executions.cancel"],
        &[On::Jobs, On::Projects]
    ),
    role!("roles/run.viewer", "Cloud Run Viewer", VIEW, RUN),
    role!("roles/run.builder", "Cloud Run Builder", &["run.services.get"], &[On::Projects]),
    role!("roles/run.sourceDeveloper", "Cloud Run Source Developer", DEVELOP, &[On::Services, On::Projects]),
    role!("roles/run.sourceViewer", "Cloud Run Source Viewer", VIEW, &[On::Services, On::Projects]),
    role!(
        "roles/iap.httpsResourceAccessor",
        "IAP-secured Web App User",
        &["iap.webServiceVersions.accessViaIAP"],
        &[On::Iap, On::Projects]
    ),
    role!("roles/iap.admin", "IAP Policy Admin", &["iap.*"], &[On::Iap, On::Projects]),
    role!("roles/iap.settingsAdmin", "IAP Settings Admin", &["iap.webServices.getSettings"], &[On::Iap, On::Projects]),
    role!("roles/owner", "Owner", &["*"], EVERYWHERE),
    role!("roles/editor", "Editor", DEVELOP, EVERYWHERE),
    role!("roles/viewer", "Viewer", VIEW, EVERYWHERE),
    role!("roles/browser", "Browser", &["resourcemanager.projects.get"], &[On::Projects]),
    role!("roles/iam.securityAdmin", "Security Admin", IAM, EVERYWHERE),
    role!("roles/iam.securityReviewer", "Security Reviewer", VIEW, EVERYWHERE),
    role!("roles/iam.serviceAccountUser", "Service Account User", &["iam.serviceAccounts.actAs"], ACCOUNTS),
    role!(
        "roles/iam.serviceAccountTokenCreator",
        "Service Account Token Creator",
        &["iam.serviceAccounts.getAccessToken"],
        ACCOUNTS
    ),
    role!(
        "roles/iam.workloadIdentityUser",
        "Workload Identity User",
        &["iam.serviceAccounts.getAccessToken", "iam.serviceAccounts.getOpenIdToken"],
        ACCOUNTS
    ),
    role!("roles/iam.serviceAccountAdmin", "Service Account Admin", &["iam.serviceAccounts.*"], ACCOUNTS),
    role!(
        "roles/iam.serviceAccountViewer",
        "View Service Accounts",
        &["iam.serviceAccounts.get", "iam.serviceAccounts.list", "iam.serviceAccounts.getIamPolicy"],
        ACCOUNTS
    ),
    role!(
        "roles/resourcemanager.projectIamAdmin",
        "Project IAM Admin",
        &["resourcemanager.projects.getIamPolicy", "resourcemanager.projects.setIamPolicy"],
        &[On::Projects]
    ),
    role!("roles/logging.viewer", "Logs Viewer", &["logging.logEntries.list"], &[On::Projects]),
];

impl Role {
    /// True when the role can be granted on a kind of resource.
    pub(crate) fn grantable_on(&self, kind: GrantKind) -> bool {
        self.on.contains(&match kind {
            GrantKind::Run(Kind::Service) => On::Services,
            GrantKind::Run(Kind::Job) => On::Jobs,
            GrantKind::Run(Kind::WorkerPool) => On::WorkerPools,
            GrantKind::Run(Kind::Instance) => On::Instances,
            GrantKind::Iap => On::Iap,
            GrantKind::Project => On::Projects,
            GrantKind::ServiceAccount => On::ServiceAccounts,
        })
    }

    /// True when the role includes a permission.
    pub(crate) fn includes(&self, permission: &str) -> bool {
        self.permissions.iter().any(|&held| match held.strip_suffix('*') {
            Some(prefix) => permission.starts_with(prefix),
            None => held == permission,
        })
    }

    /// The `Role` message; `full` adds the permissions.
    pub(crate) fn to_json(&self, full: bool) -> Value {
        let mut value = json!({
            "name": self.name,
            "title": self.title,
            "description": self.title,
            "stage": "GA",
            "etag": "AA==",
        });
        if full {
            let mut permissions: Vec<&str> =
                TABLE.iter().flat_map(|role| role.permissions).copied().filter(|p| !p.contains('*')).collect();
            permissions.retain(|permission| self.includes(permission));
            permissions.sort_unstable();
            permissions.dedup();
            value["includedPermissions"] = json!(permissions);
        }
        value
    }
}

/// The predefined role of that name.
pub(crate) fn find(name: &str) -> Option<&'static Role> {
    TABLE.iter().find(|role| role.name == name)
}

/// `projects/{p}/roles/{r}` and `organizations/{o}/roles/{r}`.
pub(crate) fn is_custom(name: &str) -> bool {
    matches!(name.split('/').collect::<Vec<_>>().as_slice(),
        ["projects" | "organizations", owner, "roles", role] if !owner.is_empty() && !role.is_empty())
}
