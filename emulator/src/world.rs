//! The store behind all APIs, and the rules for setting a policy.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::account::{self, Accounts};
use crate::caller::Callers;
use crate::directory::Directory;
use crate::error::{ApiError, CONFLICT};
use crate::etag;
use crate::fault::Faults;
use crate::journal::{Journal, Versions};
use crate::member::{self, Account, Member};
use crate::policy::{self, Binding, Policy, SetRequest};
use crate::quota::Quota;
use crate::resource::{Kind, Projects, Resource, ResourceKey, Target};
use crate::roles::{self, GrantKind};
use crate::settings::{GroupCounting, Outcome, Settings};

/// The wall clock, adjusted through the control API.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(crate) offset_micros: i64,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the emulator's one look at the wall clock")]
    pub(crate) fn now(&self) -> jiff::Timestamp {
        let wall = jiff::Timestamp::now();
        jiff::Timestamp::from_microsecond(wall.as_microsecond().saturating_add(self.offset_micros)).unwrap_or(wall)
    }

    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.now().as_microsecond()).unwrap_or(0)
    }
}

/// Delay of reads and effects behind writes, in microseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lag {
    pub(crate) read: u64,
    pub(crate) effect: u64,
}

/// A policy, and older versions that delayed readers may still see.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    current: Option<Arc<Policy>>,
    /// Times at which versions were superseded, with the versions.
    older: VecDeque<(u64, Option<Arc<Policy>>)>,
}

impl Cell {
    fn seen(&self, now: u64, lag: u64) -> Option<Arc<Policy>> {
        match self.older.iter().find(|(superseded, _)| superseded + lag > now) {
            Some((_, version)) => version.clone(),
            None => self.current.clone(),
        }
    }
}

/// The effect of a call on a policy, for the journal.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) resource: Option<String>,
    pub(crate) policies: Option<Versions>,
    pub(crate) committed: bool,
}

/// The whole state of the emulator.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    pub(crate) projects: Projects,
    pub(crate) resources: HashMap<ResourceKey, Resource>,
    /// Resources of a project, kind and location in order of creation.
    pub(crate) order: BTreeMap<(u64, Kind, String), BTreeMap<u64, String>>,
    pub(crate) accounts: Accounts,
    pub(crate) policies: HashMap<Target, Cell>,
    pub(crate) directory: Directory,
    pub(crate) callers: Callers,
    pub(crate) quota: Quota,
    pub(crate) lag: Lag,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) operations: VecDeque<(String, Value)>,
    pub(crate) last_etag: u64,
    pub(crate) last_resource: u64,
    pub(crate) trace: Trace,
}

impl World {
    /// Resets the state. Only the journal's numbering continues, so that a reader's position stays valid, and etags
    /// keep rising.
    pub(crate) fn reset(&mut self) {
        let mut journal = std::mem::take(&mut self.journal);
        journal.clear();
        let last_etag = self.last_etag;
        *self = Self { journal, last_etag, ..Self::default() };
    }

    /// The next etag: the current microsecond, but always later than any before.
    fn next_etag(&mut self) -> u64 {
        self.last_etag = self.clock.micros().max(self.last_etag + 1);
        self.last_etag
    }

    /// The last written version of the policy.
    pub(crate) fn current(&self, target: &Target) -> Option<Arc<Policy>> {
        self.policies.get(target).and_then(|cell| cell.current.clone())
    }

    /// The version of the policy that readers currently see.
    pub(crate) fn visible(&self, target: &Target) -> Option<Arc<Policy>> {
        self.policies.get(target).and_then(|cell| cell.seen(self.clock.micros(), self.lag.read))
    }

    /// The version of the policy that is currently in effect.
    pub(crate) fn effective(&self, target: &Target) -> Option<Arc<Policy>> {
        self.policies.get(target).and_then(|cell| cell.seen(self.clock.micros(), self.lag.effect))
    }

    /// Stores a version and traces it. The caller has made the checks.
    pub(crate) fn commit(&mut self, target: &Target, bindings: Vec<Binding>, audit_configs: Vec<Value>) -> Arc<Policy> {
        let version = Arc::new(Policy { etag: self.next_etag(), bindings, audit_configs });
        let now = self.clock.micros();
        let keep = self.lag.read.max(self.lag.effect);
        let cell = self.policies.entry(target.clone()).or_default();
        let before = cell.current.replace(Arc::clone(&version));
        cell.older.retain(|(superseded, _)| superseded + keep > now);
        if keep > 0 {
            cell.older.push_back((now, before.clone()));
        }
        self.trace = Trace {
            resource: Some(self.projects.target_name(target)),
            policies: Some(Versions { before, after: Some(Arc::clone(&version)) }),
            committed: true,
        };
        version
    }

    /// Stores a version without changing it.
    pub(crate) fn place(&mut self, target: &Target, version: Policy) {
        self.policies.insert(target.clone(), Cell { current: Some(Arc::new(version)), older: VecDeque::new() });
    }

    /// Removes the policy of a resource that no longer exists.
    pub(crate) fn drop_policy(&mut self, target: &Target) {
        let before = self.policies.remove(target).and_then(|cell| cell.current);
        self.trace = Trace {
            resource: Some(self.projects.target_name(target)),
            policies: Some(Versions { before, after: None }),
            committed: true,
        };
    }

    /// The answer to a client's read.
    pub(crate) fn get_policy(&mut self, target: &Target, requested_version: i64) -> Result<Value, ApiError> {
        policy::check_version(requested_version)?;
        self.must_exist(target)?;
        let seen = self.visible(target);
        self.trace = Trace {
            resource: Some(self.projects.target_name(target)),
            policies: Some(Versions { before: seen.clone(), after: None }),
            committed: false,
        };
        Ok(policy::render(seen.as_deref(), requested_version))
    }

    /// Applies a client's write as a whole, or not at all.
    pub(crate) fn set_policy(&mut self, target: &Target, request: SetRequest) -> Result<Value, ApiError> {
        self.must_exist(target)?;
        let before = self.current(target);
        self.trace = Trace {
            resource: Some(self.projects.target_name(target)),
            policies: Some(Versions { before: before.clone(), after: None }),
            committed: false,
        };
        self.check_form(target, &request)?;
        self.check_etag(before.as_deref(), &request)?;
        let SetRequest { version, bindings, audit_configs, writes_bindings, writes_audit_configs, .. } = request;
        let bindings = if writes_bindings {
            let normalised = bindings
                .into_iter()
                .map(|mut binding| {
                    for name in &mut binding.members {
                        *name = member::normalise(name, &self.directory.canonical, &self.directory.aliases);
                    }
                    binding
                })
                .collect();
            let merged = policy::merge(normalised);
            self.check_members(target, before.as_deref(), &merged)?;
            merged
        } else {
            before.as_ref().map(|policy| policy.bindings.clone()).unwrap_or_default()
        };
        let audit_configs = if writes_audit_configs {
            audit_configs
        } else {
            before.as_ref().map(|policy| policy.audit_configs.clone()).unwrap_or_default()
        };
        self.check_limits(&bindings, &audit_configs)?;
        if matches!(target, Target::Project(_))
            && bindings.is_empty()
            && self.settings.empty_project_policy == Outcome::Refuse
        {
            return Err(ApiError::invalid("Policy must contain at least one binding."));
        }
        let after = self.commit(target, bindings, audit_configs);
        Ok(policy::render(Some(&after), version.max(1)))
    }

    /// Checks that a target exists. Cloud Run resources and service accounts must have been created; projects and IAP resources exist as
    /// soon as a request names them.
    pub(crate) fn must_exist(&self, target: &Target) -> Result<(), ApiError> {
        match target {
            Target::Run(key) if !self.resources.contains_key(key) => Err(self.not_found(key)),
            Target::ServiceAccount { project, email } if !self.accounts.contains_key(&(*project, email.clone())) => {
                Err(account::unknown())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn not_found(&self, key: &ResourceKey) -> ApiError {
        ApiError::new(
            404,
            "NOT_FOUND",
            format!(
                "Resource '{}' of kind '{}' in region '{}' in project '{}' does not exist.",
                key.name,
                key.kind.word(),
                key.location,
                self.projects.id(key.project)
            ),
        )
    }

    /// Checks of a request that do not depend on the stored policy.
    fn check_form(&self, target: &Target, request: &SetRequest) -> Result<(), ApiError> {
        if !request.audit_configs.is_empty() && !matches!(target, Target::Project(_)) {
            return Err(ApiError::invalid("Audit configs are not supported for this resource."));
        }
        for binding in &request.bindings {
            if binding.role.is_empty() {
                return Err(ApiError::invalid("Role must be specified in a binding."));
            }
            if binding.members.is_empty() && self.settings.empty_binding == Outcome::Refuse {
                return Err(ApiError::invalid(format!(
                    "Binding for role {} must contain at least one principal.",
                    binding.role
                )));
            }
            for name in &binding.members {
                member::parse(name)?;
            }
            let Some(condition) = &binding.condition else { continue };
            if request.version < 3 {
                return Err(ApiError::invalid(
                    "Policies with conditional role bindings must be written with policy version 3.",
                ));
            }
            if !self.takes_conditions(target) {
                return Err(ApiError::invalid("Conditions are not supported for this resource."));
            }
            if condition.title.is_empty() {
                return Err(ApiError::invalid("Condition title must be specified."));
            }
            if condition.expression.is_empty() {
                return Err(ApiError::invalid("Condition expression must be specified."));
            }
            if ["roles/owner", "roles/editor", "roles/viewer"].contains(&binding.role.as_str()) {
                return Err(ApiError::invalid(
                    "LintValidationUnits/BindingRoleAllowConditionCheck Error: Conditions can't be set on primitive roles.",
                ));
            }
            let special = |name: &&String| matches!(member::parse(name), Ok(member::Member::Special));
            if let Some(name) = binding.members.iter().find(special) {
                return Err(ApiError::invalid(format!(
                    "LintValidationUnits/BindingMembersAllowConditionCheck Error: Conditions can't be set for {name}."
                )));
            }
            if let Err(problem) = condition.compile() {
                return Err(ApiError::invalid(format!(
                    "LintValidationUnits/ConditionCompileCheck Error: Expression compilation failed. {problem}"
                )));
            }
            if condition.logical_operators() > self.settings.condition_operators {
                return Err(ApiError::invalid(format!(
                    "Condition expression contains {} logical operators, more than the maximum of {}.",
                    condition.logical_operators(),
                    self.settings.condition_operators
                )));
            }
        }
        Ok(())
    }

    fn takes_conditions(&self, target: &Target) -> bool {
        let kinds = &self.settings.conditions;
        match target {
            Target::Run(key) => match key.kind {
                Kind::Service => kinds.services,
                Kind::Job => kinds.jobs,
                Kind::WorkerPool => kinds.worker_pools,
                Kind::Instance => kinds.instances,
            },
            Target::Project(_) => kinds.projects,
            Target::Iap { .. } => kinds.iap,
            Target::ServiceAccount { .. } => kinds.service_accounts,
        }
    }

    fn check_etag(&self, before: Option<&Policy>, request: &SetRequest) -> Result<(), ApiError> {
        let Some(sent) = &request.etag else { return Ok(()) };
        let stored = etag::bytes(before.map(|policy| policy.etag));
        if *sent != stored {
            let mut text = CONFLICT.to_owned();
            if self.settings.etags_in_conflict {
                text = format!(
                    "{text} The request's ETag '{}' did not match the current policy's ETag '{}'.",
                    etag::octal(sent),
                    etag::octal(&stored)
                );
            }
            return Err(ApiError::new(409, "ABORTED", text));
        }
        if request.version < 3 && before.is_some_and(Policy::is_conditional) {
            return Err(ApiError::invalid(
                "The stored policy has conditional role bindings; it must be written with policy version 3.",
            ));
        }
        Ok(())
    }

    /// Checks that these roles and principals are permitted in this policy.
    fn check_members(&self, target: &Target, before: Option<&Policy>, bindings: &[Binding]) -> Result<(), ApiError> {
        let kind = grant_kind(target);
        let now = self.clock.micros();
        let known: HashSet<&str> = before
            .iter()
            .flat_map(|policy| &policy.bindings)
            .flat_map(|binding| &binding.members)
            .map(String::as_str)
            .collect();
        for binding in bindings {
            let role = binding.role.as_str();
            let grantable = match roles::find(role) {
                Some(role) => role.grantable_on(kind),
                None => roles::is_custom(role) || !self.settings.strict_roles,
            };
            if !grantable {
                return Err(ApiError::invalid(format!("Role {role} is not supported for this resource.")));
            }
            for name in &binding.members {
                let parsed = member::parse(name)?;
                if kind == GrantKind::Project {
                    if parsed == Member::Special {
                        return Err(ApiError::invalid(format!("Member '{name}' is not allowed in role '{role}'.")));
                    }
                    let is_new = !before.is_some_and(|policy| {
                        let same = |old: &String| member::fold(old) == member::fold(name);
                        policy.bindings.iter().any(|old| old.role == role && old.members.iter().any(same))
                    });
                    if role == "roles/owner" && is_new && matches!(parsed, Member::Account(Account::User, _)) {
                        return Err(ApiError::invalid(format!("Member '{name}' is not allowed in role '{role}'.")));
                    }
                }
                self.directory.check(name, now)?;
            }
        }
        let new_names =
            bindings.iter().flat_map(|b| &b.members).map(String::as_str).filter(|name| !known.contains(name));
        if let Some(outsider) = self.directory.outsider(new_names) {
            return Err(self.outside_domain(target, outsider));
        }
        Ok(())
    }

    /// The error of domain-restricted sharing: Cloud Run names nobody, Resource Manager does.
    fn outside_domain(&self, target: &Target, outsider: &str) -> ApiError {
        let Target::Project(project) = target else {
            return ApiError::new(
                400,
                "FAILED_PRECONDITION",
                "One or more users named in the policy do not belong to a permitted customer,  perhaps due to an organization policy.",
            );
        };
        let account = outsider.split_once(':').map_or(outsider, |(_, account)| account);
        ApiError::new(
            400,
            "FAILED_PRECONDITION",
            "One or more users named in the policy do not belong to a permitted customer.",
        )
        .with_details(json!([{
            "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
            "violations": [{
                "type": "constraints/iam.allowedPolicyMemberDomains",
                "subject": format!("orgpolicy:projects/{}?configvalue={account}", self.projects.id(*project)),
                "description": format!("User {account} is not in permitted organization."),
            }],
        }]))
    }

    fn check_limits(&self, bindings: &[Binding], audit_configs: &[Value]) -> Result<(), ApiError> {
        let limits = &self.settings;
        let exempted: usize = audit_configs
            .iter()
            .filter_map(|config| config["auditLogConfigs"].as_array())
            .flatten()
            .filter_map(|log| log["exemptedMembers"].as_array())
            .map(Vec::len)
            .sum();
        let principals = exempted + bindings.iter().map(|binding| binding.members.len()).sum::<usize>();
        if principals > limits.principals {
            return Err(ApiError::invalid(format!(
                "The number of members in the policy ({}) is larger than the maximum allowed size {}.",
                thousands(principals),
                thousands(limits.principals)
            )));
        }
        let mut groups = 0;
        let mut distinct: HashSet<&str> = HashSet::new();
        let mut conditional: HashMap<(&str, &str), usize> = HashMap::new();
        for binding in bindings {
            for name in &binding.members {
                let counted = name.starts_with("group:")
                    || name.starts_with("domain:")
                    || (limits.principal_set_is_group && name.starts_with("principalSet:"));
                if counted {
                    let once = limits.group_counting == GroupCounting::Unique && !name.starts_with("domain:");
                    if !once || distinct.insert(name) {
                        groups += 1;
                    }
                }
                if binding.condition.is_some() {
                    let seen = conditional.entry((&binding.role, name)).or_default();
                    *seen += 1;
                    if *seen > limits.same_role_conditions {
                        return Err(ApiError::invalid(format!(
                            "The number of bindings with different conditions for role {} and member {name} is larger than the maximum allowed {}.",
                            binding.role, limits.same_role_conditions
                        )));
                    }
                }
            }
        }
        if groups > limits.groups {
            return Err(ApiError::invalid(format!(
                "The number of groups in the policy ({}) is larger than the maximum allowed size {}.",
                thousands(groups),
                thousands(limits.groups)
            )));
        }
        if let Some(cap) = limits.policy_bytes {
            let size: usize =
                bindings.iter().map(|b| b.role.len() + b.members.iter().map(String::len).sum::<usize>()).sum();
            if size > cap {
                return Err(ApiError::invalid(format!("The policy is too large ({size} bytes, at most {cap}).")));
            }
        }
        Ok(())
    }

    /// Rewrites a member in every policy; returns the number of changed policies.
    pub(crate) fn respell(&mut self, change: impl Fn(&str) -> Option<String>) -> usize {
        let targets: Vec<Target> = self.policies.keys().cloned().collect();
        let mut changed = 0;
        for target in targets {
            let Some(current) = self.current(&target) else { continue };
            let mut bindings = current.bindings.clone();
            let mut touched = false;
            for name in bindings.iter_mut().flat_map(|binding| &mut binding.members) {
                if let Some(spelling) = change(name) {
                    *name = spelling;
                    touched = true;
                }
            }
            if touched {
                self.commit(&target, policy::merge(bindings), current.audit_configs.clone());
                changed += 1;
            }
        }
        changed
    }
}

/// The applicable column of the role table.
pub(crate) fn grant_kind(target: &Target) -> GrantKind {
    match target {
        Target::Run(key) => GrantKind::Run(key.kind),
        Target::Project(_) => GrantKind::Project,
        Target::Iap { .. } => GrantKind::Iap,
        Target::ServiceAccount { .. } => GrantKind::ServiceAccount,
    }
}

/// `1501` → `1,501`
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
