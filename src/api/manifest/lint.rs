//! Checks of a set of manifests without a cluster: each manifest alone, and the references between them.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use sha2::{Digest, Sha256};

use super::{Object, ObjectRef, ParsedDocument, Problem, SecretData};
use crate::api::glob::ResourcePattern;
use crate::api::{AllowSpec, CloudRunTarget, GrantSpec, RoleMapping};
use crate::model::{Condition, Kind, MAX_OPERATORS, Reason};

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// The object would be refused.
    Error,
    /// The object would be accepted, but probably does not do what is meant.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LintFinding {
    /// The severity.
    pub(crate) severity: Severity,
    /// The object concerned, if it could be identified.
    pub(crate) object: Option<ObjectRef>,
    /// The problem and its position.
    #[serde(flatten)]
    pub(crate) problem: Problem,
}

impl fmt::Display for LintFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.problem)
    }
}

/// The result of linting.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(crate) struct LintReport {
    /// Number of valid objects of rolecall, including Secrets.
    pub(crate) objects: usize,
    /// The findings, by file and line.
    pub(crate) findings: Vec<LintFinding>,
}

impl LintReport {
    /// True when an object would be refused.
    #[must_use]
    pub(crate) fn has_errors(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Sorts the findings by file and line.
    pub(crate) fn sort(&mut self) {
        let key = |finding: &LintFinding| {
            let problem = &finding.problem;
            (problem.file.clone(), problem.line, problem.column, problem.field.clone(), finding.severity)
        };
        self.findings.sort_by_cached_key(key);
        self.findings.dedup();
    }
}

struct Known<'a> {
    file: &'a str,
    line: Option<u32>,
    object: &'a Object,
}

impl Known<'_> {
    fn finding(&self, severity: Severity, field: String, reason: &'static str, message: String) -> LintFinding {
        let problem = Problem { file: self.file.to_owned(), line: self.line, column: None, field, reason, message };
        LintFinding { severity, object: Some(self.object.object_ref()), problem }
    }
}

/// Checks the documents of a set of files. A reference to an object outside of the set is a warning, since the object
/// may exist where the manifests are applied.
#[must_use]
pub(crate) fn lint<'a>(files: impl IntoIterator<Item = (&'a str, &'a [ParsedDocument])>) -> LintReport {
    let mut report = LintReport::default();
    let mut known: BTreeMap<ObjectRef, Known<'a>> = BTreeMap::new();
    for (file, documents) in files {
        for document in documents {
            match &document.result {
                Err(problems) => report.findings.extend(problems.iter().map(|problem| LintFinding {
                    severity: Severity::Error,
                    object: document.identity.clone(),
                    problem: problem.clone(),
                })),
                Ok(object) => {
                    report.objects += 1;
                    let this = Known { file, line: document.line, object };
                    let identity = object.object_ref();
                    if let Some(other) = known.get(&identity) {
                        let message = format!("{identity} is defined in {} already; remove one of them", other.file);
                        report.findings.push(this.finding(
                            Severity::Error,
                            "metadata.name".to_owned(),
                            Reason::DuplicateObject.word(),
                            message,
                        ));
                    } else {
                        known.insert(identity, this);
                    }
                }
            }
        }
    }
    for this in known.values() {
        match this.object {
            Object::RoleMapping(mapping) => references(this, mapping, &known, &mut report),
            Object::CloudRunTarget(target) => overlaps(this, target, &known, &mut report),
            Object::IdentityProvider(_) | Object::Secret(_) => {}
        }
    }
    tokens(&known, &mut report);
    report.sort();
    report
}

fn find<'a>(known: &'a BTreeMap<ObjectRef, Known<'_>>, kind: Kind, name: &str) -> Option<&'a Object> {
    known.get(&ObjectRef::new(kind, None, name)).map(|known| known.object)
}

fn references(
    this: &Known<'_>,
    mapping: &RoleMapping,
    known: &BTreeMap<ObjectRef, Known<'_>>,
    report: &mut LintReport,
) {
    let mut warn =
        |field, reason, message| report.findings.push(this.finding(Severity::Warning, field, reason, message));
    for (index, subject) in mapping.spec.subjects.iter().enumerate() {
        let name = &subject.identity_provider;
        if find(known, Kind::IdentityProvider, name).is_none() {
            let message = format!("the IdentityProvider `{name}` is not among these manifests");
            warn(format!("spec.subjects[{index}].identityProvider"), Reason::IdentityProviderNotFound.word(), message);
        }
    }
    for (index, grant) in mapping.spec.grants.iter().enumerate() {
        let name = &grant.target.name;
        let Some(Object::CloudRunTarget(target)) = find(known, Kind::CloudRunTarget, name) else {
            let message = format!("the CloudRunTarget `{name}` is not among these manifests");
            warn(format!("spec.grants[{index}].target.name"), Reason::TargetNotFound.word(), message);
            continue;
        };
        for (field, reason, message) in conditions(grant) {
            warn(format!("spec.grants[{index}].{field}"), reason, message);
        }
        for (field, message) in undelegated(mapping, grant, target) {
            warn(format!("spec.grants[{index}].{field}"), Reason::NotDelegated.word(), message);
        }
    }
}

/// What is wrong with the condition of a grant, whatever resources exist.
fn conditions(grant: &GrantSpec) -> Vec<(String, &'static str, String)> {
    let Some(condition) = &grant.condition else { return Vec::new() };
    let mut found = Vec::new();
    let expression = condition.expression.clone();
    let operators = Condition { expression, ..Condition::default() }.logical_operators();
    if operators > MAX_OPERATORS {
        let message = format!("the expression has {operators} logical operators; Google accepts {MAX_OPERATORS}");
        found.push(("condition.expression".to_owned(), Reason::ConditionInvalid.word(), message));
    }
    for (index, resource) in grant.resources.iter().enumerate() {
        if ResourcePattern::parse(resource).is_ok_and(|pattern| !pattern.kind().takes_conditions()) {
            let message = format!("policies of this kind take no conditions, so nothing is granted on `{resource}`");
            found.push((format!("resources[{index}]"), Reason::ConditionNotSupported.word(), message));
        }
    }
    found
}

/// The parts of a grant that no entry of the target can admit, whatever resources exist.
fn undelegated(mapping: &RoleMapping, grant: &GrantSpec, target: &CloudRunTarget) -> Vec<(String, String)> {
    let namespace = mapping.metadata.namespace.as_deref().unwrap_or_default();
    let target_name = target.metadata.name.as_deref().unwrap_or_default();
    let mut refused = Vec::new();
    for subject in &mapping.spec.subjects {
        let provider = &subject.identity_provider;
        let admits = |entry: &&AllowSpec| {
            entry.namespaces.names.iter().any(|name| name == namespace) && entry.identity_providers.contains(provider)
        };
        let entries: Vec<_> = target.spec.allow.iter().filter(admits).collect();
        if entries.is_empty() {
            let message =
                format!("`{target_name}` delegates nothing to namespace `{namespace}` for groups of `{provider}`");
            refused.push(("target.name".to_owned(), message));
            continue;
        }
        for (index, role) in grant.roles.iter().enumerate() {
            if !entries.iter().any(|entry| entry.roles.contains(role)) {
                let message = format!("`{target_name}` does not delegate `{role}` to namespace `{namespace}`");
                refused.push((format!("roles[{index}]"), message));
            }
        }
        for (index, resource) in grant.resources.iter().enumerate() {
            if !entries.iter().any(|entry| entry.resources.iter().any(|allowed| may_share(allowed, resource))) {
                let message = format!("`{target_name}` does not delegate `{resource}` to namespace `{namespace}`");
                refused.push((format!("resources[{index}]"), message));
            }
        }
    }
    refused.sort();
    refused.dedup();
    refused
}

/// True when one resource can match both patterns. Exact when one of the patterns has no wildcard; otherwise only the
/// kinds are compared.
fn may_share(allowed: &str, wanted: &str) -> bool {
    let (Ok(allowed), Ok(wanted)) = (ResourcePattern::parse(allowed), ResourcePattern::parse(wanted)) else {
        return false;
    };
    match (allowed.literal(), wanted.literal()) {
        (_, Some(name)) => allowed.matches(wanted.kind(), name),
        (Some(name), None) => wanted.matches(allowed.kind(), name),
        (None, None) => allowed.kind() == wanted.kind(),
    }
}

fn overlaps(
    this: &Known<'_>,
    target: &CloudRunTarget,
    known: &BTreeMap<ObjectRef, Known<'_>>,
    report: &mut LintReport,
) {
    for other in known.values() {
        let Object::CloudRunTarget(other) = other.object else { continue };
        let theirs = &other.spec.locations;
        let both: Vec<_> = target.spec.locations.iter().filter(|region| theirs.contains(region)).cloned().collect();
        // Each pair is reported once, on the target that is later by name.
        if other.metadata.name < target.metadata.name && other.spec.project == target.spec.project && !both.is_empty() {
            let name = other.metadata.name.as_deref().unwrap_or_default();
            let message = format!(
                "`{name}` covers {} of project `{}` too; the older one wins, the other does nothing there",
                both.join(", "),
                target.spec.project
            );
            let field = "spec.locations".to_owned();
            report.findings.push(this.finding(Severity::Warning, field, Reason::OverlappingTarget.word(), message));
        }
    }
}

/// The reference to a token, and its hash if the Secret is part of the set.
type TokenIdentity = (String, Option<[u8; 32]>);

/// Reports tokens that two tenants share, which are refused for both: whether they refer to one Secret, or to two
/// Secrets with the same value.
fn tokens(known: &BTreeMap<ObjectRef, Known<'_>>, report: &mut LintReport) {
    let secrets: BTreeMap<&str, &SecretData> = known
        .values()
        .filter_map(|known| match known.object {
            Object::Secret(secret) => Some((secret.name.as_str(), secret)),
            _ => None,
        })
        .collect();
    let mut seen: BTreeMap<TokenIdentity, String> = BTreeMap::new();
    for this in known.values() {
        let Object::IdentityProvider(provider) = this.object else { continue };
        let name = provider.metadata.name.clone().unwrap_or_default();
        let tokens = provider.spec.scim.tokens.iter().enumerate().map(|(index, token)| {
            let (field, reference) = (format!("spec.scim.tokens[{index}].secretRef"), &token.secret_ref);
            let hash = secrets.get(reference.name.as_str()).map(|secret| secret.token_sha256(reference.key));
            (field, &token.name, &reference.name, reference.key.as_str(), hash)
        });
        let clients = provider.spec.scim.oauth_clients.iter().enumerate().map(|(index, client)| {
            let (field, reference) = (format!("spec.scim.oauthClients[{index}].secretRef"), &client.secret_ref);
            let hash = secrets
                .get(reference.name.as_str())
                .map(|secret| secret.client().map(|(_, secret)| Sha256::digest(secret).into()));
            (field, &client.name, &reference.name, "clientSecret", hash)
        });
        for (field, token, secret, key, hash) in tokens.chain(clients) {
            let identity = match hash {
                None => (format!("{secret}/{key}"), None),
                Some(hash) => match hash {
                    Ok(hash) => (String::new(), Some(hash)),
                    Err(error) => {
                        let message = format!("Secret `{secret}`: {error}");
                        report.findings.push(this.finding(Severity::Error, field, error.reason(), message));
                        continue;
                    }
                },
            };
            match seen.get(&identity) {
                Some(other) if *other != name => {
                    let message = format!(
                        "token `{token}` is the same as one of IdentityProvider `{other}`; it is refused for both"
                    );
                    report.findings.push(this.finding(Severity::Error, field, Reason::TokenShared.word(), message));
                }
                Some(_) => {
                    let message = format!("token `{token}` is the same as another one here; remove one of them");
                    report.findings.push(this.finding(Severity::Warning, field, Reason::TokenShared.word(), message));
                }
                None => {
                    seen.insert(identity, name.clone());
                }
            }
        }
    }
}
