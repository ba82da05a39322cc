use std::path::Path;

use clap::CommandFactory;

use super::*;
use crate::model::SystemClock;

/// Carries out a command line; what it wrote, and how it ended.
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
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_every_verb_has_an_example_or_no_flags() {
    let mut root = Cli::command();
    root.build();
    for verb in root.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "store") {
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
    assert_eq!(config.manifests, Path::new("x"));

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
