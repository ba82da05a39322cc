//! The rules of the schema: for each, values that it accepts, and values that it refuses, with reason and words of the
//! message. The cluster tests send the same rows to an API server.

/// A provider that sets every field.
pub(crate) const PROVIDER: &str = r#"apiVersion: rolecall.dev/v1alpha1
kind: IdentityProvider
metadata:
  name: okta
spec:
  state: Active
  staleAfter: 26h
  scim:
    strictness: Explain
    requestsPerSecond: 100
    tokens:
      - name: a
        secretRef: {name: okta-scim, key: token}
        notAfter: "2027-01-31T00:00:00Z"
    oauthClients:
      - name: c
        secretRef: {name: okta-client}
        notAfter: "2027-01-31T00:00:00Z"
    oidc: {issuer: "https://corp.okta.com/oauth2/default", audience: rolecall, subjects: ["0oa1"]}
  principals:
    allowedDomains: [example.com]
    users:
      googleAccount: {attribute: userName}
"#;

/// The tokens of that provider.
const TOKENS: &str = r#"    tokens:
      - name: a
        secretRef: {name: okta-scim, key: token}
        notAfter: "2027-01-31T00:00:00Z"
"#;

/// All its credentials.
const CREDENTIALS: &str = r#"    tokens:
      - name: a
        secretRef: {name: okta-scim, key: token}
        notAfter: "2027-01-31T00:00:00Z"
    oauthClients:
      - name: c
        secretRef: {name: okta-client}
        notAfter: "2027-01-31T00:00:00Z"
    oidc: {issuer: "https://corp.okta.com/oauth2/default", audience: rolecall, subjects: ["0oa1"]}
"#;

/// A target that sets every field.
pub(crate) const TARGET: &str = r#"apiVersion: rolecall.dev/v1alpha1
kind: CloudRunTarget
metadata:
  name: shop-dev
spec:
  project: shop-dev
  locations: [europe-west1]
  discoveryInterval: 5m
  driftInterval: 10m
  documents:
    - resources: ["services/*"]
      unexpected: Report
      ignore: ["serviceAccount:*", allUsers]
  allow:
    - namespaces: {names: [checkout], matchLabels: {team: checkout}}
      identityProviders: [okta]
      resources: ["services/checkout-*"]
      roles: [roles/run.invoker]
      permit: [Suspend]
"#;

/// A mapping that sets every field.
pub(crate) const MAPPING: &str = r#"apiVersion: rolecall.dev/v1alpha1
kind: RoleMapping
metadata:
  name: checkout-team
  namespace: checkout
spec:
  description: squad
  subjects:
    - identityProvider: okta
      groups: [{displayName: team-checkout}]
  grants:
    - target: {name: shop-dev}
      resources: ["services/checkout-*"]
      roles: [roles/run.invoker]
      condition: {title: office-hours, description: by day, expression: "request.time.getHours() < 18"}
      notAfter: "2027-03-31T00:00:00Z"
  mode: Enforce
  onMissing: Revert
  deletionPolicy: Revoke
"#;

/// The text with `from`, which must be in it, replaced once.
pub(crate) fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "`{from}` is not in the manifest");
    text.replacen(from, to, 1)
}

/// The refused text, the reason, and words of the message.
pub(crate) type Refused = (String, &'static str, &'static str);

/// A manifest, the text to replace in it, accepted replacements, and refused ones.
pub(crate) type Row = (&'static str, &'static str, Vec<String>, Vec<Refused>);

/// The rows.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(crate) fn rows() -> Vec<Row> {
    let long = |length: usize| "a".repeat(length);
    vec![
        (
            PROVIDER,
            "name: okta\n",
            vec!["name: okta-eu.corp\n".into(), format!("name: {}\n", long(63))],
            vec![
                (format!("name: {}\n", ["a"; 40].join(".")), "RuleViolated", "at most 63 characters"),
                ("name: Okta\n".into(), "InvalidName", "lower-case"),
                ("name: 7\n".into(), "WrongType", "write it in quotes"),
                ("namespace: x\n".into(), "MissingField", "required"),
                ("name: okta\n  namespace: x\n".into(), "UnknownField", "belongs to no namespace"),
                ("name: okta\n  labels: {a: 1}\n".into(), "WrongType", "must be a text, is a number"),
            ],
        ),
        (
            PROVIDER,
            "state: Active",
            vec!["state: Suspended".into(), "state: null".into()],
            vec![
                ("state: active".into(), "ValueNotAllowed", "none of Active, Suspended"),
                ("state: off".into(), "AmbiguousValue", "write \"off\""),
            ],
        ),
        (
            PROVIDER,
            "staleAfter: 26h",
            vec!["staleAfter: 1h30m".into(), "staleAfter: 90s".into(), "staleAfter: 1s".into()],
            vec![
                ("staleAfter: 1d".into(), "PatternMismatch", "`1d` does not have the form"),
                ("staleAfter: 0s".into(), "RuleViolated", "between 1s and 8760h"),
                ("staleAfter: 99999h".into(), "RuleViolated", "between 1s and 8760h"),
                ("staleAfter: 26".into(), "WrongType", "must be a text, is a number"),
                ("staleAfter: null".into(), "WrongType", "write a value or remove the field"),
                ("staleAfter: 11111h11111m11111s1s".into(), "TooLong", "at most 18 characters, has 20"),
            ],
        ),
        (
            PROVIDER,
            "strictness: Explain",
            vec!["strictness: Strict".into()],
            vec![("strictness: Lax".into(), "ValueNotAllowed", "Explain")],
        ),
        (
            PROVIDER,
            "- name: a",
            vec!["- name: a-1".into(), format!("- name: {}", long(63))],
            vec![
                ("- name: A".into(), "RuleViolated", "a token's name"),
                ("- name: ''".into(), "TooShort", "at least 1 character"),
                (format!("- name: {}", long(64)), "TooLong", "at most 63 characters, has 64"),
                ("- name: a\n        secretRef: {name: x}\n      - name: a".into(), "DuplicateItem", "stands twice"),
            ],
        ),
        (
            PROVIDER,
            "- name: c",
            vec!["- name: a".into()],
            vec![
                ("- name: C".into(), "RuleViolated", "and a client's"),
                ("- name: c\n        secretRef: {name: x}\n      - name: c".into(), "DuplicateItem", "stands twice"),
            ],
        ),
        (
            PROVIDER,
            "secretRef: {name: okta-client}",
            vec!["secretRef: {name: okta.client}".into()],
            vec![
                ("secretRef: {name: okta_client}".into(), "RuleViolated", "a Secret's name"),
                ("secretRef: {name: x, key: token}".into(), "UnknownField", "the fields here are name"),
                ("secretRef: {}".into(), "MissingField", "required and missing"),
            ],
        ),
        (
            PROVIDER,
            "\"https://corp.okta.com/oauth2/default\"",
            vec!["\"https://idp.example.com:8443/a/b/\"".into(), "\"https://10.0.0.1\"".into()],
            vec![
                ("\"http://corp.okta.com\"".into(), "RuleViolated", "an https URL"),
                ("\"https://corp.okta.com?a=b\"".into(), "RuleViolated", "an https URL"),
                ("\"https://me@corp.okta.com/x\"".into(), "RuleViolated", "an https URL"),
                ("\"corp.okta.com\"".into(), "RuleViolated", "an https URL"),
            ],
        ),
        (
            PROVIDER,
            "subjects: [\"0oa1\"]",
            vec!["subjects: [a, b]".into()],
            vec![
                ("subjects: []".into(), "TooFew", "at least 1"),
                ("subjects: [\"a b\"]".into(), "RuleViolated", "no spaces"),
                ("subjects: [\"\"]".into(), "TooShort", "at least 1 character"),
                ("issuers: []".into(), "MissingField", "required and missing"),
            ],
        ),
        (PROVIDER, "audience: rolecall", vec![], vec![("audience: \"\"".into(), "TooShort", "at least 1 character")]),
        (PROVIDER, TOKENS, vec![String::new(), "    tokens: []\n".into()], vec![]),
        (
            PROVIDER,
            CREDENTIALS,
            vec![TOKENS.into(), "    oidc: {issuer: \"https://idp.example.com\", audience: a, subjects: [b]}\n".into()],
            vec![
                (String::new(), "RuleViolated", "at least one of tokens"),
                ("    tokens: []\n    oauthClients: []\n".into(), "RuleViolated", "at least one of tokens"),
            ],
        ),
        (
            PROVIDER,
            "{name: okta-scim, key: token}",
            vec!["{name: okta.scim, key: tokenSHA256}".into(), format!("{{name: {}}}", long(253))],
            vec![
                ("{name: okta_scim}".into(), "RuleViolated", "a Secret's name"),
                ("{key: token}".into(), "MissingField", "required and missing"),
                ("{name: x, key: password}".into(), "ValueNotAllowed", "none of token, tokenSHA256"),
                ("{name: x, namespace: y}".into(), "UnknownField", "the fields here are key, name"),
                ("okta-scim".into(), "WrongType", "must be a map, is a text"),
            ],
        ),
        (
            PROVIDER,
            "\"2027-01-31T00:00:00Z\"",
            vec!["2027-01-31T00:00:00Z".into(), "2027-01-31T00:00:00.5+01:00".into()],
            vec![
                ("2027-01-31".into(), "InvalidTime", "2027-01-31T00:00:00Z"),
                ("2027-02-31T00:00:00Z".into(), "InvalidTime", "is not a time"),
                ("2027-01-31T00:00:00".into(), "InvalidTime", "is not a time"),
                ("2027".into(), "WrongType", "must be a time"),
            ],
        ),
        (
            PROVIDER,
            "[example.com]",
            vec!["[example.com, corp.example]".into(), "[xn--bcher-kva.example]".into()],
            vec![
                ("[Example.com]".into(), "RuleViolated", "lower case"),
                ("['@example.com']".into(), "RuleViolated", "without '@'"),
                ("['*.example.com']".into(), "RuleViolated", "wildcard"),
                ("[localhost]".into(), "RuleViolated", "write a domain"),
                ("[]".into(), "TooFew", "at least 1 entry"),
                ("[a.example, a.example]".into(), "DuplicateItem", "stands twice"),
                ("example.com".into(), "WrongType", "must be a list, is a text"),
            ],
        ),
        (
            PROVIDER,
            "{attribute: userName}",
            vec![
                "{attribute: externalId}".into(),
                "{attribute: 'emails[primary eq true].value'}".into(),
                "{attribute: 'emails[type eq \"work\"].value'}".into(),
            ],
            vec![
                ("{attribute: displayName}".into(), "ValueNotAllowed", "none of userName"),
                ("{}".into(), "MissingField", "required"),
            ],
        ),
        (
            TARGET,
            "project: shop-dev",
            vec!["project: example.com:shop".into(), "project: a1".into()],
            vec![
                ("project: '123456789012'".into(), "RuleViolated", "this is a project number"),
                ("project: Shop".into(), "RuleViolated", "a project id starts with a letter"),
                ("project: shop-".into(), "RuleViolated", "a project id starts with a letter"),
                ("project: projects/shop".into(), "RuleViolated", "a project id starts with a letter"),
                ("project: 123456789012".into(), "WrongType", "is a number"),
            ],
        ),
        (
            TARGET,
            "[europe-west1]",
            vec!["[europe-west1, us-central1, northamerica-northeast2]".into()],
            vec![
                ("['*']".into(), "RuleViolated", "wildcards are refused"),
                ("['-']".into(), "RuleViolated", "write each region"),
                ("[europe-west1-b]".into(), "RuleViolated", "write each region"),
                ("[global]".into(), "RuleViolated", "write each region"),
                ("[europe-west1, europe-west1]".into(), "DuplicateItem", "stands twice"),
            ],
        ),
        (
            TARGET,
            "discoveryInterval: 5m",
            vec!["discoveryInterval: 1s".into(), "discoveryInterval: 24h".into()],
            vec![
                ("discoveryInterval: 0s".into(), "RuleViolated", "between 1s and 8760h"),
                ("discoveryInterval: 5 minutes".into(), "PatternMismatch", "does not have the form"),
            ],
        ),
        (
            TARGET,
            "driftInterval: 10m",
            vec!["driftInterval: 1s".into(), "driftInterval: 24h".into(), "# the flag counts".into()],
            vec![
                ("driftInterval: 0s".into(), "RuleViolated", "between 1s and 8760h"),
                ("driftInterval: often".into(), "PatternMismatch", "does not have the form"),
            ],
        ),
        (
            TARGET,
            "unexpected: Report",
            vec!["unexpected: Ignore".into(), "# by default".into()],
            vec![("unexpected: Allow".into(), "ValueNotAllowed", "none of Ignore")],
        ),
        (
            TARGET,
            "ignore: [\"serviceAccount:*\", allUsers]",
            vec!["ignore: [\"*\"]".into(), "# nobody".into()],
            vec![
                ("ignore: [\"user: a\"]".into(), "RuleViolated", "without spaces"),
                ("ignore: [\"\"]".into(), "TooShort", "at least 1"),
            ],
        ),
        (
            TARGET,
            "{names: [checkout], matchLabels: {team: checkout}}",
            vec![
                "{names: [checkout, shop-2]}".into(),
                "{matchLabels: {team: checkout, env: \"\"}}".into(),
                "{names: [checkout], matchLabels: {example.com/team: a}}".into(),
            ],
            vec![
                ("{names: ['*']}".into(), "RuleViolated", "globs are refused"),
                ("{names: []}".into(), "TooFew", "at least 1 entry"),
                ("{}".into(), "RuleViolated", "choose them by their labels in matchLabels"),
                ("{matchLabels: {}}".into(), "TooFew", "at least 1 entry"),
                (format!("{{matchLabels: {{team: {}}}}}", "x".repeat(64)), "TooLong", "at most 63"),
                ("{matchLabels: {team: 1}}".into(), "WrongType", "write it in quotes"),
            ],
        ),
        (
            TARGET,
            "identityProviders: [okta]",
            vec!["identityProviders: [okta, entra.eu]".into()],
            vec![
                ("identityProviders: ['*']".into(), "RuleViolated", "a name has"),
                ("identityProviders: []".into(), "TooFew", "at least 1 entry"),
                ("# none".into(), "MissingField", "required"),
            ],
        ),
        (
            MAPPING,
            "resources: [\"services/checkout-*\"]",
            vec![
                "resources: [services/checkout, jobs/nightly, \"workerPools/*\"]".into(),
                "resources: [\"services/*-api\"]".into(),
            ],
            vec![
                ("resources: ['*']".into(), "RuleViolated", "write services/NAME"),
                ("resources: ['*/checkout']".into(), "RuleViolated", "write services/NAME"),
                ("resources: [checkout]".into(), "RuleViolated", "(found `checkout`)"),
                ("resources: [services/Checkout]".into(), "RuleViolated", "lower case"),
                ("resources: [services/]".into(), "RuleViolated", "write services/NAME"),
                ("resources: [workerpools/x]".into(), "RuleViolated", "write services/NAME"),
                ("resources: ['services/a/b']".into(), "RuleViolated", "write services/NAME"),
                ("resources: ['services/checkout-?']".into(), "RuleViolated", "write services/NAME"),
                (format!("resources: [services/{}]", long(72)), "TooLong", "at most 80 characters, has 81"),
            ],
        ),
        (
            MAPPING,
            "roles: [roles/run.invoker]",
            vec![
                "roles: [roles/run.invoker, projects/shop/roles/runOperator]".into(),
                "roles: [organizations/123/roles/run_operator]".into(),
            ],
            vec![
                ("roles: ['*']".into(), "RuleViolated", "globs are refused"),
                ("roles: ['roles/*']".into(), "RuleViolated", "globs are refused"),
                ("roles: ['roles/run.*']".into(), "RuleViolated", "globs are refused"),
                ("roles: [roles/owner]".into(), "RuleViolated", "basic roles are refused"),
                ("roles: [roles/editor]".into(), "RuleViolated", "basic roles are refused"),
                ("roles: [roles/viewer]".into(), "RuleViolated", "(found `roles/viewer`)"),
                ("roles: [run.invoker]".into(), "RuleViolated", "write roles/NAME"),
                ("roles: [organizations/acme/roles/x]".into(), "RuleViolated", "organizations/NUMBER"),
                ("roles: []".into(), "TooFew", "at least 1 entry"),
            ],
        ),
        (
            MAPPING,
            "{displayName: team-checkout}",
            vec!["{externalId: 00g1abcd}".into(), "{displayName: 'Équipe 🧾'}".into()],
            vec![
                ("{displayName: a, externalId: b}".into(), "RuleViolated", "exactly one of displayName and externalId"),
                ("{}".into(), "RuleViolated", "exactly one of displayName and externalId"),
                ("{displayName: ''}".into(), "TooShort", "at least 1 character"),
                ("{displayName: 2027}".into(), "WrongType", "write it in quotes"),
                ("{displayName: yes}".into(), "AmbiguousValue", "kubectl takes `yes`"),
                ("{name: team}".into(), "UnknownField", "the fields here are displayName, externalId"),
            ],
        ),
        (
            MAPPING,
            "identityProvider: okta",
            vec!["identityProvider: okta.eu".into()],
            vec![
                ("identityProvider: Okta".into(), "RuleViolated", "a name has"),
                (
                    "identityProvider: okta\n      groups: [{displayName: x}]\n    - identityProvider: okta".into(),
                    "DuplicateItem",
                    "stands twice",
                ),
            ],
        ),
        (
            MAPPING,
            "{name: shop-dev}",
            vec!["{name: shop.dev}".into()],
            vec![
                ("{name: Shop}".into(), "RuleViolated", "a name has"),
                ("{kind: CloudRunTarget, name: shop-dev}".into(), "UnknownField", "the fields here are name"),
            ],
        ),
        (
            MAPPING,
            "title: office-hours",
            vec!["title: Office hours (Zürich)".into(), format!("title: {}", long(100))],
            vec![
                ("title: \" \"".into(), "RuleViolated", "a condition needs a title of visible characters"),
                ("title: \"\"".into(), "TooShort", "at least 1 character"),
                (format!("title: {}", long(101)), "TooLong", "at most 100 characters"),
                ("titel: office-hours".into(), "MissingField", "required"),
            ],
        ),
        (
            MAPPING,
            "expression: \"request.time.getHours() < 18\"",
            vec![format!("expression: {}", long(2048))],
            vec![
                (format!("expression: {}", long(2049)), "TooLong", "at most 2048 characters"),
                ("expression: \"\"".into(), "TooShort", "at least 1 character"),
            ],
        ),
        (
            MAPPING,
            "description: by day",
            vec![format!("description: {}", long(256))],
            vec![(format!("description: {}", long(257)), "TooLong", "at most 256 characters")],
        ),
        (
            MAPPING,
            "notAfter: \"2027-03-31T00:00:00Z\"",
            vec!["notAfter: \"2027-03-31T02:00:00+02:00\"".into(), "# never".into()],
            vec![("notAfter: tomorrow".into(), "InvalidTime", "is not a time")],
        ),
        (
            MAPPING,
            "description: squad",
            vec!["# none".into(), format!("description: {}", long(1024))],
            vec![(format!("description: {}", long(1025)), "TooLong", "at most 1024 characters, has 1025")],
        ),
        (
            MAPPING,
            "mode: Enforce",
            vec!["mode: Observe".into(), "mode: Suspend".into()],
            vec![("mode: DryRun".into(), "ValueNotAllowed", "none of Enforce, Observe, Suspend")],
        ),
        (
            MAPPING,
            "onMissing: Revert",
            vec!["onMissing: Report".into()],
            vec![("onMissing: Ignore".into(), "ValueNotAllowed", "none of Revert, Report")],
        ),
        (
            MAPPING,
            "deletionPolicy: Revoke",
            vec!["deletionPolicy: Orphan".into()],
            vec![("deletionPolicy: Retain".into(), "ValueNotAllowed", "none of Revoke, Orphan")],
        ),
        (
            MAPPING,
            "  namespace: checkout\n",
            vec![
                "  namespace: checkout\n  annotations: {rolecall.dev/release: \"abc\"}\n  creationTimestamp: null\n"
                    .into(),
            ],
            vec![
                (String::new(), "MissingField", "a RoleMapping belongs to a namespace"),
                ("  namespace: Checkout\n".into(), "InvalidName", "lower-case"),
                ("  namespace: checkout\n  annotation: {}\n".into(), "UnknownField", "annotations"),
            ],
        ),
    ]
}
