//! `rolecall store erase`: the names and addresses of one person.

use std::fmt::Write as _;

use clap::Args;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::model::Clock;
use crate::store::{Erased, Erasure, KnownPerson, Store};

use super::prune::ResultFormat;
use super::store::open_existing;
use super::{CliError, Exit, Io};

pub(super) const EXAMPLES: &str = "\
Takes the names and addresses of a person out of the event log, its history and the audit, and out of the file itself. The
SCIM id stays: what was done is still told, of an id; the hash chain of the audit still verifies; past positions are still
rebuilt, and nothing is derived for the person there. The audit has a row more, with the id. The file is rewritten, which
needs room for a copy; whoever writes waits meanwhile, about a second for each 100 MB.

It is refused while the identity provider has the person: delete the person there first, since its next push would bring
everything back. Where an identity provider only deactivates (Okta), send `DELETE /idp/NAME/scim/v2/Users/ID` with its token; for
an identity provider that is gone there is `rolecall store purge-provider`. It is refused while rolecall holds a grant of the
person, or has a removal still to do. Backups, copies and the identity provider itself are not touched.

Examples:
  rolecall store erase alice@example.com --dry-run --database sqlite:/var/lib/rolecall/rolecall.db
  kubectl exec -n rolecall-system deploy/rolecall -- /rolecall store erase 0b3f2d6c-5a0e-4f43-9d0e-6f3f1c1f5a11 \\
    --database sqlite:/var/lib/rolecall/rolecall.db

Exit status: 0 erased, 1 refused or nobody of that name, 2 wrong command line, 3 the store is not usable.";

/// Time that a running rolecall may take to process a deletion, during which it may still grant something.
const SETTLE: SignedDuration = SignedDuration::from_secs(2);

/// Number of policies that are listed.
const SHOWN: usize = 5;

/// Flags of `rolecall store erase`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct StoreEraseArgs {
    /// The person: a SCIM id, or a userName, externalId or address that only one person had
    #[arg(value_name = "PERSON")]
    pub(crate) person: String,

    /// Only report what would be erased, or why it is refused
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Output format; default: text
    #[arg(short, long, value_enum)]
    pub(crate) output: Option<ResultFormat>,

    /// The store: sqlite:PATH; it must exist
    #[arg(long, value_name = "URL", env = "ROLECALL_DATABASE", hide_env_values = true)]
    pub(crate) database: String,
}

/// The result, for machines and in words.
struct Answer {
    exit: Exit,
    value: Value,
    text: String,
}

impl Answer {
    fn refused(reason: &str, text: String, mut value: Value) -> Self {
        value["erased"] = false.into();
        value["reason"] = reason.into();
        value["message"] = text.as_str().into();
        Self { exit: Exit::No, value, text }
    }
}

/// Runs `rolecall store erase`.
pub(super) async fn run(args: &StoreEraseArgs, io: &mut Io<'_>, clock: &dyn Clock) -> Result<Exit, CliError> {
    let store = open_existing(&args.database).await?;
    let people = store.find_people(&args.person).await?;
    if let [KnownPerson { deleted_at: Some(at), .. }] = people.as_slice() {
        let heard = at.saturating_add(SETTLE).unwrap_or(*at);
        let left = heard.duration_since(clock.now()).clamp(SignedDuration::ZERO, SETTLE);
        tokio::time::sleep(left.unsigned_abs()).await;
    }
    let answer = match people.as_slice() {
        [] if uuid::Uuid::try_parse(&args.person).is_ok() => nobody(&store).await?,
        [] => erase(&store, None, args).await?,
        [person] => erase(&store, Some(person), args).await?,
        several => ambiguous(several),
    };
    // Includes a rewrite left over by an earlier, interrupted run.
    if !args.dry_run && store.is_rewrite_due().await? {
        store.rewrite_file().await?;
    }
    if args.output == Some(ResultFormat::Json) {
        serde_json::to_writer_pretty(&mut *io.out, &answer.value).map_err(std::io::Error::from)?;
        writeln!(io.out)?;
    } else if answer.exit == Exit::Done {
        writeln!(io.out, "{}", answer.text)?;
    } else {
        writeln!(io.err, "{}", answer.text)?;
    }
    Ok(answer.exit)
}

async fn nobody(store: &Store) -> Result<Answer, CliError> {
    let mut text =
        "nobody is known by this id, userName, externalId or address; an erased person is only known by the id, which \
                    the `person.erase` rows of the audit have"
            .to_owned();
    if store.is_rewrite_due().await? {
        text.push_str("; the file is rewritten, since an earlier run was interrupted before that");
    }
    Ok(Answer::refused("PersonUnknown", text, json!({})))
}

fn ambiguous(several: &[KnownPerson]) -> Answer {
    let mut text = format!("{} people were known by this name; name one of them by the id:", several.len());
    let mut choices = Vec::new();
    for KnownPerson { id, provider, deleted_at } in several {
        let state = deleted_at.map_or_else(|| "not deleted".to_owned(), |at| format!("deleted {at}"));
        let _ = write!(text, "\n  {id}  {provider}  {state}");
        choices.push(
            json!({"id": id, "identityProvider": provider.as_str(), "deletedAt": deleted_at.map(|at| at.to_string())}),
        );
    }
    Answer::refused("PersonAmbiguous", text, json!({"choices": choices}))
}

/// Erases a person. `person`: none when nothing connects the name to an id any more.
async fn erase(store: &Store, person: Option<&KnownPerson>, args: &StoreEraseArgs) -> Result<Answer, CliError> {
    let id = person.map(|person| person.id);
    let name = args.person.as_str();
    let name = Some(name).filter(|name| id.is_none_or(|id| !name.eq_ignore_ascii_case(&id.to_string())));
    let who = id.map_or_else(|| "a user whose id is no longer known".to_owned(), |id| format!("user {id}"));
    let known = json!({"id": id, "identityProvider": person.map(|person| person.provider.as_str())});
    Ok(match store.erase_person(id, name, args.dry_run).await? {
        Erasure::Unknown => nobody(store).await?,
        Erasure::NotDeleted(provider) => {
            let id = id.map(|id| id.to_string()).unwrap_or_default();
            let text = format!(
                "IdentityProvider {provider} has not deleted {who}, and its next push would bring the names back: delete the \
                 person there, or, if it never sends deletions, send DELETE /idp/{provider}/scim/v2/Users/{id} with its token; \
                 wait until the grants are revoked, then run this again. Nothing was erased"
            );
            Answer::refused("PersonNotDeleted", text, known)
        }
        Erasure::Granted(documents) => {
            let mut shown: Vec<String> = documents.iter().take(SHOWN).map(ToString::to_string).collect();
            if documents.len() > SHOWN {
                shown.push(format!("{} more", documents.len() - SHOWN));
            }
            let text = format!(
                "rolecall still has grants of {who} to revoke or to check, on {}: it does so by itself unless the guard \
                 holds it or something is frozen, which `rolecall status` shows; run this again then. Nothing was erased",
                shown.join(", ")
            );
            let mut value = known;
            value["policies"] = documents.iter().map(ToString::to_string).collect();
            Answer::refused("PersonHoldsGrants", text, value)
        }
        Erasure::Erased(erased) => done(&who, erased, known, args.dry_run),
    })
}

fn done(who: &str, erased: Erased, mut value: Value, dry: bool) -> Answer {
    let Erased { events, names, refusals, mentioned_by } = erased;
    let verb = if dry { "would erase" } else { "erased" };
    let mut text =
        format!("{verb} the names of {who} from {events} events, {names} names of the audit and {refusals} refusals");
    if !dry {
        text.push_str(", and rewrote the file");
    }
    if mentioned_by > 0 {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "; {mentioned_by} other users still have an address of this person in what their identity provider pushed of them, \
             where it has to be removed"
        );
    }
    value["erased"] = (!dry).into();
    value["dryRun"] = dry.into();
    value["events"] = events.into();
    value["names"] = names.into();
    value["refusals"] = refusals.into();
    value["mentionedBy"] = mentioned_by.into();
    Answer { exit: Exit::Done, value, text }
}
