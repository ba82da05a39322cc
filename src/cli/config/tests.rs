use clap::Parser;

use super::*;
use crate::cli::{Cli, Command};

fn args(extra: &[&str]) -> RunArgs {
    let base = ["rolecall", "run", "--database", "sqlite:/tmp/x.db", "--manifests", "access"];
    match Cli::try_parse_from(base.iter().chain(extra)).unwrap().command {
        Command::Run(args) => RunArgs { cloud_run_service: None, ..args },
        other => panic!("not run: {other:?}"),
    }
}

fn config(extra: &[&str]) -> Result<RunConfig, ConfigErrors> {
    RunConfig::from_args(&args(extra))
}

fn first_error(extra: &[&str]) -> String {
    config(extra).unwrap_err().to_string()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = config(&[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen.to_string(), "127.0.0.1:8081");
    assert_eq!(config.probe_listen, None);
    assert_eq!((config.max_connections, config.max_connections_per_peer), (1024, 512));
    assert_eq!(config.requests_per_second, crate::scim_server::DEFAULT_REQUESTS_PER_SECOND);
    assert_eq!(config.quota, Quota::default());
    assert_eq!(config.mode, Mode::Observe);
    assert_eq!(config.namespace, "rolecall-system");
    assert_eq!(config.google_credentials, CredentialsKind::Adc);
    assert_eq!(config.google_endpoint, None);
    assert_eq!(config.drift_interval, Duration::from_mins(5));
    assert_eq!(config.log_format, LogFormat::Text);
    assert_eq!(config.log_level, "info");
    assert_eq!(config.database, DatabaseUrl::Sqlite("/tmp/x.db".into()));
}

#[test]
fn external_url_comes_from_the_bound_address_unless_given() {
    let bound: SocketAddr = "127.0.0.1:4567".parse().unwrap();
    let anywhere: SocketAddr = "0.0.0.0:4567".parse().unwrap();
    let six: SocketAddr = "[::1]:4567".parse().unwrap();
    let silent = config(&["--listen", "127.0.0.1:0"]).unwrap();
    assert_eq!(silent.external_url(bound), "http://127.0.0.1:4567");
    assert_eq!(silent.external_url(anywhere), "http://localhost:4567");
    assert_eq!(silent.external_url(six), "http://[::1]:4567");
    let said = config(&["--external-url", "https://scim.corp.example/rolecall/"]).unwrap();
    assert_eq!(said.external_url(bound), "https://scim.corp.example/rolecall");
    let bare = config(&["--external-url", "https://scim.corp.example"]).unwrap();
    assert_eq!(bare.external_url(bound), "https://scim.corp.example");
}

#[test]
fn localhost_is_understood_as_a_listen_address() {
    assert_eq!(config(&["--listen", "localhost:9000"]).unwrap().listen.to_string(), "127.0.0.1:9000");
}

#[test]
fn each_wrong_flag_is_named_with_its_value_and_the_fix() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--listen", "8080"], "--listen: `8080`", "127.0.0.1:8080"),
        (&["--admin-listen", "nowhere"], "--admin-listen: `nowhere`", "127.0.0.1:8080"),
        (&["--listen", "127.0.0.1:8081"], "--admin-listen: 127.0.0.1:8081", "another port"),
        (&["--listen", "0.0.0.0:8081"], "--admin-listen: 0.0.0.0:8081", "another port"),
        (&["--probe-listen", "nowhere"], "--probe-listen: `nowhere`", "127.0.0.1:8080"),
        (&["--probe-listen", "0.0.0.0:8081"], "--probe-listen: 127.0.0.1:8081", "another port"),
        (&["--probe-listen", "127.0.0.1:8080"], "is already the address of --listen", "another port"),
        (&["--external-url", "scim.corp.example"], "--external-url: `scim.corp.example` is not a URL", "http(s)://"),
        (&["--external-url", "ftp://a.example"], "neither http nor https", "http(s)://"),
        (&["--external-url", "https://a.example/?x=1"], "has a query", "http(s)://"),
        (&["--namespace", "Rolecall"], "--namespace: `Rolecall`", "a-z"),
        (&["--namespace", ""], "--namespace: ``", "a-z"),
        (&["--drift-interval", "5x"], "--drift-interval: `5x`", "5m"),
        (&["--drift-interval", "5"], "--drift-interval: `5`", "5m"),
        (&["--drift-interval", "1ms"], "outside 100ms to 24h", "--drift-interval"),
        (&["--drift-interval", "25h"], "outside 100ms to 24h", "--drift-interval"),
        (&["--drift-interval=-5m"], "outside 100ms to 24h", "--drift-interval"),
        (&["--log-level", "rolecall=loud"], "--log-level: `rolecall=loud`", "info"),
        (&["--log-level", ""], "--log-level: ``", "info"),
    ];
    for (flags, what, how) in cases {
        let error = first_error(flags);
        assert!(error.contains(what) && error.contains(how), "{flags:?} gave {error}");
    }
}

#[test]
fn a_database_that_cannot_be_used_is_refused() {
    for (url, what) in [
        ("rolecall.db", "has no scheme"),
        ("sqlite:", "names no file"),
        ("sqlite://", "names no file"),
        ("sqlite::memory:", "does not survive"),
        ("sqlite:a.db?mode=ro", "has options"),
        ("postgres://db/rolecall", "PostgreSQL"),
        ("mysql:x", "unknown scheme"),
    ] {
        let error = DatabaseUrl::parse(url).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("sqlite:PATH"), "{url} gave {error}");
    }
}

#[test]
fn a_database_path_may_be_relative_or_absolute_or_behind_slashes() {
    for (url, path) in [("sqlite:a.db", "a.db"), ("sqlite:/v/a.db", "/v/a.db"), ("sqlite:///v/a.db", "/v/a.db")] {
        assert_eq!(DatabaseUrl::parse(url).unwrap(), DatabaseUrl::Sqlite(path.into()));
    }
}

#[test]
fn application_default_credentials_go_to_google_over_https_only() {
    for endpoint in [
        "http://127.0.0.1:9090",
        "http://emulator.example:9090",
        "https://emulator.example",
        "http://run.googleapis.com",
        "https://googleapis.com.evil.example",
        "https://evilgoogleapis.com",
        "https://run.googleapis.com:8443",
    ] {
        let error = first_error(&["--google-endpoint", endpoint]);
        assert!(error.contains("--google-credentials none") && error.contains(endpoint), "{endpoint} gave {error}");
        assert!(config(&["--google-endpoint", endpoint, "--google-credentials", "none"]).is_ok());
    }
    assert!(config(&["--google-endpoint", "https://run.googleapis.com"]).is_ok());
    assert!(config(&["--google-endpoint", "https://europe-west1-run.googleapis.com"]).is_ok());
}

#[test]
fn a_local_disk_on_cloud_run_is_refused() {
    let on_cloud_run = RunArgs { cloud_run_service: Some("rolecall".to_owned()), ..args(&[]) };
    let error = RunConfig::from_args(&on_cloud_run).unwrap_err().to_string();
    assert!(error.contains("K_SERVICE") && error.contains("sqlite"), "{error}");
    let elsewhere = RunArgs { cloud_run_service: Some(String::new()), ..args(&[]) };
    assert!(RunConfig::from_args(&elsewhere).is_ok());
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    for url in ["https://me:hunter2@proxy.example", "me:hunter2@proxy.example", "://me:hunter2@proxy.example"] {
        for flag in ["--external-url", "--google-endpoint"] {
            let error = first_error(&[flag, url]);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
    let error = DatabaseUrl::parse("postgres://me:hunter2@db/rolecall").unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.contains("…@db/rolecall"), "{error}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let ConfigErrors(errors) =
        config(&["--listen", "x", "--namespace", "X", "--drift-interval", "x", "--log-level", "a=b=c"]).unwrap_err();
    assert_eq!(errors.len(), 4, "{errors:?}");
}

#[test]
fn a_long_value_is_shown_in_part() {
    let long = "x".repeat(10_000);
    assert!(first_error(&["--listen", &long]).len() < 500);
}

#[test]
fn settings_that_are_probably_not_intended_give_a_warning() {
    let quiet = config(&["--mode", "enforce"]).unwrap();
    assert_eq!(quiet.warnings(), Vec::<String>::new());
    let open = config(&["--listen", "0.0.0.0:80", "--admin-listen", "0.0.0.0:81", "--drift-interval", "1s"]).unwrap();
    let text = open.warnings().join("\n");
    for word in ["observe", "without TLS", "--admin-listen", "read quota"] {
        assert!(text.contains(word), "{text}");
    }
    let behind_tls =
        config(&["--mode", "enforce", "--listen", "0.0.0.0:80", "--external-url", "https://a.example"]).unwrap();
    assert_eq!(behind_tls.warnings(), Vec::<String>::new());
}
