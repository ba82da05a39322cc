use std::path::Path;
use std::sync::Arc;

use clap::CommandFactory;

use super::*;
use crate::controller::checkpoint::{self, Checkpoint};
use crate::model::{FreezeReason, Kind, ManualClock, MappingPhase, ProviderName, SystemClock, UserFacts, UserId};
use crate::store::{Decision, NewUser, Origin, Store, StoredSpec};

/// Runs a command line and returns its output, its errors and its outcome.
async fn rolecall(arguments: &[&str]) -> (String, String, Exit) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let cli = Cli::try_parse_from(std::iter::once("rolecall").chain(arguments.iter().copied())).unwrap();
    let mut io = Io { out: &mut out, err: &mut err };
    let exit = match dispatch(cli, &mut io, &SystemClock).await {
        Ok(Next::Exit(exit)) => exit,
        Ok(Next::Run(config)) => panic!("{config:?}"),
        Err(error) => error.report(&mut io),
    };
    (plain(&out), plain(&err), exit)
}

fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    [table::BAD, table::CAUTION, table::HEADER, table::RESET].iter().fold(text, |text, style| text.replace(style, ""))
}

#[test]
fn prose_of_help_is_broken_by_the_terminal_and_examples_are_not() {
    let text = "One sentence\nover two lines.\n\nAnother.\n\nExamples:\n  rolecall a \\\n    --b\n  rolecall c\n\nExit status: 0.";
    let expected = "One sentence over two lines.\n\nAnother.\n\nExamples:\n  rolecall a \\\n    --b\n  rolecall c\n\nExit status: 0.";
    assert_eq!(super::paragraphs(text), expected);
    let mut command = super::with_paragraphs(Cli::command()).term_width(80);
    let help = command
        .find_subcommand_mut("store")
        .and_then(|store| store.find_subcommand_mut("erase"))
        .unwrap()
        .clone()
        .term_width(80)
        .render_help()
        .to_string();
    let (_, prose) = help.split_once("Takes the names").unwrap();
    let (prose, _) = prose.split_once("\n\n").unwrap();
    assert!(
        prose.lines().rev().skip(1).all(|line| (60..=80).contains(&line.len()) || line.starts_with(" and")),
        "{prose}"
    );
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_every_verb_has_an_example_or_no_flags() {
    let mut root = Cli::command();
    root.build();
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set() && !verb.has_subcommands()) {
        let bare = verb.get_arguments().all(|arg| arg.get_id() == "help");
        assert!(bare || verb.get_after_help().is_some(), "{}", verb.get_name());
    }
}

#[test]
fn exit_statuses_are_the_documented_ones() {
    assert_eq!([Exit::Done, Exit::No, Exit::Usage, Exit::Unavailable].map(Exit::code), [0, 1, 2, 3]);
}

#[tokio::test]
async fn version_is_the_one_of_the_package() {
    let (out, _, exit) = rolecall(&["version"]).await;
    assert_eq!((out.trim(), exit), (concat!("rolecall ", env!("CARGO_PKG_VERSION")), Exit::Done));
}

#[tokio::test]
async fn crds_are_one_stream_of_yaml_with_every_kind() {
    let (out, _, exit) = rolecall(&["crds"]).await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(out.matches("---\n").count(), 3);
    for name in ["identityproviders", "cloudruntargets", "rolemappings"] {
        assert!(out.contains(&format!("name: {name}.rolecall.dev")), "{name}");
    }
}

#[tokio::test]
async fn run_hands_its_configuration_back_and_reports_every_mistake_on_a_line() {
    let cli = Cli::try_parse_from(["rolecall", "run", "--database", "sqlite:a.db", "--manifests", "x"]).unwrap();
    let mut io = Io { out: &mut std::io::sink(), err: &mut std::io::sink() };
    let Next::Run(config) = dispatch(cli, &mut io, &SystemClock).await.unwrap() else { panic!("not run") };
    assert_eq!(config.manifests.as_deref(), Some(Path::new("x")));

    let (mut out, mut err) = (Vec::new(), Vec::new());
    let line = ["rolecall", "run", "--database", "a.db", "--manifests", "x", "--drift-interval", "soon"];
    let mut io = Io { out: &mut out, err: &mut err };
    let error = dispatch(Cli::try_parse_from(line).unwrap(), &mut io, &SystemClock).await.unwrap_err();
    assert_eq!(error.report(&mut io), Exit::Usage);
    let text = plain(&err);
    assert_eq!(text.lines().filter(|line| line.starts_with("error: --")).count(), 2, "{text}");
    assert!(out.is_empty());
}

#[tokio::test]
async fn status_without_a_running_rolecall_says_what_to_check() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (out, err, exit) = rolecall(&["status", "--admin", &format!("http://127.0.0.1:{port}")]).await;
    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(out, "");
    assert!(err.contains("--admin-listen") && err.contains(&port.to_string()), "{err}");
}

#[tokio::test]
async fn reader_that_has_seen_enough_is_no_failure() {
    let error = CliError::Output(io::ErrorKind::BrokenPipe.into());
    let mut err = Vec::new();
    assert_eq!(error.report(&mut Io { out: &mut std::io::sink(), err: &mut err }), Exit::Done);
    assert!(err.is_empty());
}

#[tokio::test]
async fn store_that_does_not_exist_is_not_created_by_accepting_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("typo.db");
    let database = format!("sqlite:{}", file.display());
    let manifests = dir.path().join("access").display().to_string();
    let (_, err, exit) = rolecall(&["store", "accept", "--database", &database, "--manifests", &manifests]).await;
    assert_eq!(exit, Exit::Unavailable);
    assert!(err.contains("typo.db"), "{err}");
    assert!(!file.exists());
}

/// A store in a folder of its own, and the flags that refer to it.
async fn store() -> (tempfile::TempDir, Store, [String; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("rolecall.db").display());
    let store = Store::open(&url, Arc::new(SystemClock)).await.unwrap();
    store.begin_epoch("the running process").await.unwrap();
    (dir, store, ["--database".to_owned(), url])
}

#[tokio::test]
async fn store_that_is_accepted_matches_from_then_on() {
    let (dir, store, [flag, url]) = store().await;
    let manifests = dir.path().join("access").display().to_string();
    let path = checkpoint::mirror_path(Path::new(&manifests)).unwrap();
    let other = Checkpoint { store_id: uuid::Uuid::from_u128(7), highest_seq: 40, highest_audit_seq: 0 };
    checkpoint::write(&path, &other).unwrap();
    let line = ["store", "accept", &flag, &url, "--manifests", &manifests];
    let (out, _, exit) = rolecall(&line).await;
    assert_eq!(exit, Exit::Done);
    assert!(out.contains(&store.id().to_string()) && out.contains("position 40"), "{out}");
    let seen = checkpoint::read(&path).unwrap().unwrap();
    assert_eq!(checkpoint::compare(Some(&seen), &checkpoint::of(&store).await.unwrap()), checkpoint::Comparison::Match);
    let (out, _, exit) = rolecall(&line).await;
    assert_eq!(exit, Exit::Done);
    assert!(out.contains("already accepted"), "{out}");

    std::fs::write(&path, "{").unwrap();
    let (out, err, exit) = rolecall(&line).await;
    assert_eq!(exit, Exit::Done);
    assert!(err.contains("does not contain") && out.contains("could not be read"), "{out}{err}");
    // The audit has rows for both decisions.
    let now = checkpoint::of(&store).await.unwrap();
    assert_eq!(checkpoint::read(&path).unwrap().unwrap(), now);
    assert_eq!(now, Checkpoint { highest_audit_seq: seen.highest_audit_seq + 1, ..seen });
}

#[tokio::test]
async fn release_of_a_known_mapping_is_left_for_the_running_process() {
    let (_dir, store, [flag, url]) = store().await;
    let (_, err, exit) = rolecall(&["release", "mapping", "checkout/team", &flag, &url]).await;
    assert_eq!(exit, Exit::No);
    assert!(err.contains("`checkout/team`"), "{err}");
    assert_eq!(store.decisions().await.unwrap(), []);

    let spec = StoredSpec {
        kind: Kind::RoleMapping,
        namespace: Some("checkout".to_owned()),
        name: "team".to_owned(),
        generation: 1,
        phase: MappingPhase::Missing(FreezeReason::MappingMissing),
        source: "mapping.yaml".to_owned(),
        json: "{}".to_owned(),
    };
    store.put_spec(spec).await.unwrap();
    let (out, _, exit) = rolecall(&["release", "mapping", "checkout/team", &flag, &url]).await;
    assert_eq!(exit, Exit::Done);
    assert!(out.contains("checkout/team"), "{out}");
    let (_, _, exit) = rolecall(&["release", "manifests", &flag, &url]).await;
    assert_eq!(exit, Exit::Done);
    let decided: Vec<Decision> = store.decisions().await.unwrap().into_iter().map(|pending| pending.decision).collect();
    let team = MappingKey::new("checkout", "team").unwrap();
    assert_eq!(decided, [Decision::ReleaseMapping(team), Decision::ReleaseManifests]);
}

/// Pushes a user as an identity provider does, and returns the id.
async fn push(store: &Store, name: &str) -> UserId {
    let facts = UserFacts {
        id: UserId(uuid::Uuid::new_v4()),
        active: true,
        user_name: name.to_owned(),
        external_id: None,
        emails: vec![],
    };
    let user = NewUser { resource: serde_json::json!({"userName": name}), facts };
    store.create_user(&okta(), &origin(), user).await.unwrap().facts.id
}

fn okta() -> ProviderName {
    ProviderName::new("okta").unwrap()
}

fn origin() -> Origin {
    Origin { token: "a".to_owned(), request_id: None }
}

#[tokio::test]
async fn prune_reports_the_numbers_of_removed_rows_and_a_dry_run_removes_nothing() {
    let (_dir, store, [flag, url]) = store().await;
    push(&store, "alice@corp.example").await;
    let line = ["store", "prune", "--older-than", "400d", &flag, &url];
    let (out, err, exit) = rolecall(&line).await;
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    assert!(out.starts_with("removed what is older than ") && out.contains(" 0 events"), "{out}");

    // More than a year later.
    let later = ManualClock::new(SystemClock.now() + jiff::SignedDuration::from_hours(24 * 500));
    let run = async |arguments: &[&str]| {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let cli = Cli::try_parse_from(std::iter::once("rolecall").chain(arguments.iter().copied())).unwrap();
        let mut io = Io { out: &mut out, err: &mut err };
        assert!(matches!(dispatch(cli, &mut io, &later).await, Ok(Next::Exit(Exit::Done))));
        plain(&out)
    };
    let json = async |dry: &[&str]| -> serde_json::Value {
        serde_json::from_str(&run(&[&line[..], &["-o", "json"], dry].concat()).await).unwrap()
    };
    let would = json(&["--dry-run"]).await;
    assert_eq!(store.audit_after(0, 10).await.unwrap().len(), 2);
    let did = json(&["--vacuum"]).await;
    assert_eq!((&would["dryRun"], &did["dryRun"]), (&true.into(), &false.into()));
    assert_eq!(did["removed"]["auditRows"], 2);
    for key in ["before", "historySince", "auditSince", "removed"] {
        assert_eq!(would[key], did[key], "{key}");
    }
    let (out, _, exit) = rolecall(&["store", "verify", &flag, &url]).await;
    assert_eq!(exit, Exit::Done);
    assert!(
        out.starts_with("1 rows of the audit hold; the last is row 3 ") && out.contains("begins with row 3"),
        "{out}"
    );
    let (out, _, _) = rolecall(&["store", "verify", "-o", "json", &flag, &url]).await;
    let chain: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&chain["holds"], &chain["since"], &chain["last"]), (&true.into(), &3.into(), &3.into()));

    for age in ["59m", "soon"] {
        let error = Cli::try_parse_from(["rolecall", "store", "prune", "--older-than", age, &flag, &url]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
    assert!(Cli::try_parse_from(["rolecall", "store", "prune", &flag, &url]).is_err(), "nothing is removed by default");
}

#[tokio::test]
async fn erase_is_refused_until_the_person_is_deleted_and_then_reports_what_was_erased() {
    let (dir, store, [flag, url]) = store().await;
    let alice = push(&store, "alice@corp.example").await;
    let erase =
        async |who: &str, more: &[&str]| rolecall(&[&["store", "erase", who, &flag, &url][..], more].concat()).await;
    let (out, err, exit) = erase("alice@corp.example", &[]).await;
    assert_eq!((exit, out.as_str()), (Exit::No, ""));
    let request = format!("DELETE /idp/okta/scim/v2/Users/{alice}");
    assert!(err.contains("has not deleted") && err.contains(&request), "{err}");
    let (out, _, exit) = erase("carol@corp.example", &["-o", "json"]).await;
    let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((exit, &answer["reason"], &answer["erased"]), (Exit::No, &"PersonUnknown".into(), &false.into()));

    store.delete_user(&okta(), &origin(), alice, None).await.unwrap();
    let again = push(&store, "Alice@corp.example").await;
    let (_, err, exit) = erase("alice@corp.example", &[]).await;
    assert_eq!(exit, Exit::No);
    for (id, state) in [(alice, "deleted"), (again, "not deleted")] {
        assert!(err.contains(&format!("{id}  okta  {state}")), "{err}");
    }
    store.delete_user(&okta(), &origin(), again, None).await.unwrap();
    let (out, _, exit) = erase(&alice.to_string(), &["--dry-run"]).await;
    assert_eq!(exit, Exit::Done);
    assert!(out.starts_with("would erase "), "{out}");
    for id in [alice, again] {
        let (out, err, exit) = erase(&id.to_string(), &["-o", "json"]).await;
        let answer: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((exit, err.as_str(), &answer["erased"]), (Exit::Done, "", &true.into()));
        assert_eq!((&answer["events"], &answer["names"]), (&1.into(), &1.into()));
    }
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let text = String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap()).to_lowercase();
        assert!(!text.contains("alice"));
    }
    let (_, err, exit) = erase("alice@corp.example", &[]).await;
    assert!(exit == Exit::No && err.contains("person.erase"), "{err}");
}

#[test]
fn release_of_something_that_is_no_mapping_is_a_usage_error() {
    let error = Cli::try_parse_from(["rolecall", "release", "mapping", "team", "--database", "sqlite:x"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("NAMESPACE/NAME"), "{error}");
}

const GOOD: &str = "\
apiVersion: rolecall.dev/v1alpha1
kind: RoleMapping
metadata: {name: team, namespace: checkout}
spec:
  subjects:
    - identityProvider: okta
      groups: [{displayName: team-checkout}]
  grants:
    - target: {name: shop-dev}
      resources: [services/checkout-api]
      roles: [roles/run.invoker]
";

#[tokio::test]
async fn lint_names_file_line_column_and_field_and_answers_no() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mapping.yaml");
    std::fs::write(&file, GOOD.replace("roles/run.invoker", "roles/owner")).unwrap();
    let path = file.display().to_string();
    let (out, err, exit) = rolecall(&["lint", &path]).await;
    assert_eq!(exit, Exit::No);
    assert!(out.contains(&format!("{path}:11:15 spec.grants[0].roles[0]: ")), "{out}");
    assert!(err.contains("1 problem"), "{err}");

    let (out, _, exit) = rolecall(&["lint", "-o", "json", &path]).await;
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(exit, Exit::No);
    assert_eq!(report["findings"][0]["severity"], "error");
    assert_eq!(report["findings"][0]["line"], 11);
    assert_eq!(report["findings"][0]["field"], "spec.grants[0].roles[0]");
}

#[tokio::test]
async fn lint_of_what_would_be_accepted_answers_yes_and_warns_of_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("mapping.yaml"), GOOD).unwrap();
    std::fs::write(dir.path().join(".hidden.yaml"), "a: [").unwrap();
    let (out, err, exit) = rolecall(&["lint", &dir.path().display().to_string()]).await;
    assert_eq!(exit, Exit::Done, "{out}");
    assert!(out.lines().all(|line| line.contains("warning: ")) && out.contains("shop-dev"), "{out}");
    assert!(err.contains("1 good object, no problems"), "{err}");
}

#[tokio::test]
async fn lint_of_a_file_that_is_not_there_answers_no() {
    let (out, _, exit) = rolecall(&["lint", "/nonexistent/mapping.yaml"]).await;
    assert_eq!(exit, Exit::No);
    assert!(out.contains("/nonexistent/mapping.yaml"), "{out}");
}

/// An admin port that answers a single request.
async fn admin(status: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        assert!(request[..read].starts_with(b"GET /status HTTP/1.1\r\n"));
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    url
}

#[tokio::test]
async fn status_shows_what_the_admin_port_serves() {
    let cache = crate::status::StatusCache::new();
    let metadata = crate::status::Metadata { name: "okta".to_owned(), ..Default::default() };
    cache.publish(crate::status::Item::new(
        metadata,
        Some(serde_json::json!({"state": "Active"})),
        crate::status::Status::IdentityProvider(Box::default()),
    ));
    let url = admin("200 OK", &serde_json::to_string(&cache.list()).unwrap()).await;
    let (out, err, exit) = rolecall(&["status", "--admin", &url]).await;
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    assert!(out.lines().nth(1).unwrap().starts_with("okta   Active"), "{out}");
}

#[tokio::test]
async fn doctor_lists_findings_with_their_next_step_and_says_by_its_status_whether_there_are_any() {
    use crate::api::{FindingStatus, IdentityProviderStatus};
    let finding = FindingStatus {
        code: "BearerMissing".to_owned(),
        pointer: "/emails/value".to_owned(),
        hint: "choose bearer authentication at the IdP".to_owned(),
        count: 7,
        last_seen: None,
    };
    let condition = |kind: &str| k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: "Accepted".to_owned(),
        message: String::new(),
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
        observed_generation: None,
    };
    let well = IdentityProviderStatus {
        conditions: vec![condition("Ready"), condition("TokensValid")],
        ..IdentityProviderStatus::default()
    };
    let ill = IdentityProviderStatus { findings: vec![finding], ..well.clone() };
    for (status, exit, words) in [
        (well, Exit::Done, &["No findings."][..]),
        (ill, Exit::No, &["BearerMissing", "/emails/value", "7", "choose bearer authentication at the IdP"]),
    ] {
        let cache = crate::status::StatusCache::new();
        let metadata = crate::status::Metadata { name: "okta".to_owned(), ..Default::default() };
        let status = crate::status::Status::IdentityProvider(Box::new(status));
        cache.publish(crate::status::Item::new(metadata, None, status));
        let body = serde_json::to_string(&cache.list()).unwrap();
        let (out, err, got) = rolecall(&["doctor", "okta", "--admin", &admin("200 OK", &body).await]).await;
        assert_eq!((got, err.as_str()), (exit, ""));
        assert!(words.iter().all(|word| out.contains(word)), "{out}");
        let (out, _, _) = rolecall(&["doctor", "okta", "-o", "json", "--admin", &admin("200 OK", &body).await]).await;
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
        let (_, err, got) = rolecall(&["doctor", "other", "--admin", &admin("200 OK", &body).await]).await;
        assert_eq!(got, Exit::No);
        assert!(err.contains("other"), "{err}");
    }
}

#[tokio::test]
async fn status_of_one_provider_shows_when_each_token_ends_and_was_last_used() {
    use crate::api::{IdentityProviderStatus, TokenStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    let now = SystemClock.now();
    let token = TokenStatus {
        name: "autumn".to_owned(),
        not_after: Some(Time("2100-01-01T00:00:00Z".parse().unwrap())),
        last_used: Some(Time(now - jiff::SignedDuration::from_secs(3 * 3600 + 5))),
        reason: None,
    };
    let unused = TokenStatus { name: "spring".to_owned(), ..TokenStatus::default() };
    let status = IdentityProviderStatus { tokens: vec![token, unused], ..IdentityProviderStatus::default() };
    let cache = crate::status::StatusCache::new();
    for name in ["okta", "entra"] {
        let metadata = crate::status::Metadata { name: name.to_owned(), ..Default::default() };
        let status = crate::status::Status::IdentityProvider(Box::new(status.clone()));
        cache.publish(crate::status::Item::new(metadata, None, status));
    }
    let body = serde_json::to_string(&cache.list()).unwrap();
    let (out, err, exit) = rolecall(&["status", "idp/okta", "--admin", &admin("200 OK", &body).await]).await;
    assert_eq!((exit, err.as_str()), (Exit::Done, ""));
    let row =
        |name: &str| out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{out}")).to_owned();
    assert!(out.contains("LAST USED"), "{out}");
    assert!(row("autumn").contains("2100-01-01T00:00:00Z") && row("autumn").contains("3h ago"), "{out}");
    assert!(row("spring").contains("never"), "{out}");
    let (out, ..) = rolecall(&["status", "idp", "--admin", &admin("200 OK", &body).await]).await;
    assert!(!out.contains("LAST USED"), "{out}");
}

#[tokio::test]
async fn answer_that_is_not_a_status_list_is_reported() {
    for (status, body, what) in
        [("503 Service Unavailable", "", "503"), ("200 OK", "<html>", "expected value"), ("302 Found", "", "302")]
    {
        let url = admin(status, body).await;
        let (out, err, exit) = rolecall(&["status", "--admin", &url]).await;
        assert_eq!((exit, out.as_str()), (Exit::Unavailable, ""), "{status}");
        assert!(err.contains("does not answer like a rolecall") && err.contains(what), "{err}");
    }
}

#[tokio::test]
async fn replay_writes_no_control_characters_of_a_file_and_reads_no_huge_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture.json");
    let path = file.to_str().unwrap();
    let capture = r#"{"rolecallVersion": "1", "identityProvider": "okta", "until": "2026-06-01T00:00:00Z", "strict": false,
        "dialect": "\u001b]0;pwned\u0007\u202e", "dropped": 0, "requests": []}"#;
    std::fs::write(&file, capture).unwrap();
    let (out, err, exit) = rolecall(&["replay", path]).await;
    assert_eq!(exit, Exit::Usage);
    let shown = err.replace(table::BAD, "").replace(table::RESET, "");
    assert!(out.is_empty() && shown.contains("pwned"), "{err:?}");
    assert!(!shown.chars().any(|one| (one.is_control() && one != '\n') || one == '\u{202e}'), "{err:?}");
    std::fs::File::create(&file).unwrap().set_len(64 * 1024 * 1024 + 1).unwrap();
    let (_, err, exit) = rolecall(&["replay", path]).await;
    assert_eq!(exit, Exit::Usage);
    assert!(err.contains("more than 64 MiB"), "{err}");
}
