//! Between values and columns, and from database errors to situations.

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::StoreError;
use crate::model::ProviderName;

/// A time as it is stored: nanoseconds since 1970, which an `i64` holds from 1677 to 2262.
pub(super) fn nanos(at: Timestamp) -> i64 {
    let wide = at.as_nanosecond();
    i64::try_from(wide).unwrap_or(if wide < 0 { i64::MIN } else { i64::MAX })
}

/// Text folded for comparison without regard to case.
pub(super) fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// Ids as the text that `json_each` and `unhex` take apart again.
pub(super) fn id_list(ids: &[Uuid]) -> String {
    let mut text = String::with_capacity(ids.len() * 35 + 2);
    text.push('[');
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push('"');
        text.push_str(id.simple().encode_lower(&mut uuid::Uuid::encode_buffer()));
        text.push('"');
    }
    text.push(']');
    text
}

/// The length of a text as the database counts it.
pub(super) fn size(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

/// JSON text of a value that always has one.
pub(super) fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Internal { problem: error.to_string() })
}

/// Reads columns by position; a value that is not what it should be is [`StoreError::Damaged`].
pub(super) struct Columns<'r> {
    row: &'r SqliteRow,
    what: &'static str,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(super) fn of(row: &'r SqliteRow, what: &'static str) -> Self {
        Self::after(row, what, 0)
    }

    /// As [`Columns::of`], without so many columns at the beginning.
    pub(super) fn after(row: &'r SqliteRow, what: &'static str, next: usize) -> Self {
        Self { row, what, next }
    }

    fn damaged(&self, problem: &impl ToString) -> StoreError {
        StoreError::Damaged { what: self.what, problem: problem.to_string() }
    }

    fn get<T>(&mut self) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        let index = self.next;
        self.next += 1;
        self.row.try_get(index).map_err(|error| self.damaged(&error))
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.get()
    }

    pub(super) fn text_or_none(&mut self) -> Result<Option<String>, StoreError> {
        self.get()
    }

    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        self.get()
    }

    pub(super) fn integer_or_none(&mut self) -> Result<Option<i64>, StoreError> {
        self.get()
    }

    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let number = self.integer()?;
        u64::try_from(number).map_err(|error| self.damaged(&error))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        let number = self.integer()?;
        Timestamp::from_nanosecond(i128::from(number)).map_err(|error| self.damaged(&error))
    }

    pub(super) fn time_or_none(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let number = self.integer_or_none()?;
        let time = number.map(|number| Timestamp::from_nanosecond(i128::from(number)));
        time.transpose().map_err(|error| self.damaged(&error))
    }

    pub(super) fn id(&mut self) -> Result<Uuid, StoreError> {
        let bytes: &[u8] = self.get()?;
        Uuid::from_slice(bytes).map_err(|error| self.damaged(&error))
    }

    pub(super) fn id_or_none(&mut self) -> Result<Option<Uuid>, StoreError> {
        let bytes: Option<&[u8]> = self.get()?;
        bytes.map(Uuid::from_slice).transpose().map_err(|error| self.damaged(&error))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let text: &str = self.get()?;
        serde_json::from_str(text).map_err(|error| self.damaged(&error))
    }

    /// A column whose text is checked by the type it becomes.
    pub(super) fn parse<T>(&mut self) -> Result<T, StoreError>
    where
        T: TryFrom<String, Error: ToString>,
    {
        let text = self.text()?;
        T::try_from(text).map_err(|error| self.damaged(&error))
    }

    pub(super) fn parse_or_none<T>(&mut self) -> Result<Option<T>, StoreError>
    where
        T: TryFrom<String, Error: ToString>,
    {
        match self.text_or_none()? {
            None => Ok(None),
            Some(text) => T::try_from(text).map(Some).map_err(|error| self.damaged(&error)),
        }
    }

    pub(super) fn provider(&mut self) -> Result<ProviderName, StoreError> {
        self.parse()
    }

    /// A column that holds one of a few words.
    pub(super) fn word<T>(&mut self, from: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let word: &str = self.get()?;
        from(word).ok_or_else(|| self.damaged(&format!("`{word}` is not a word of this column")))
    }
}

/// Primary result codes of the database.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NO_MEMORY: i32 = 7;
    pub(super) const READ_ONLY: i32 = 8;
    pub(super) const IO_ERROR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANNOT_OPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const CONSTRAINT: i32 = 19;
    pub(super) const NOT_A_DATABASE: i32 = 26;
}

fn primary_code(error: &dyn sqlx::error::DatabaseError) -> i32 {
    error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(0) & 0xff
}

/// Is the file itself what is wrong (something else, or damaged)?
pub(super) fn is_not_a_database(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error)
        if matches!(primary_code(error.as_ref()), code::NOT_A_DATABASE | code::CORRUPT))
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let problem = error.to_string();
        match error {
            sqlx::Error::Database(error) => match primary_code(error.as_ref()) {
                code::CONSTRAINT => match taken_attribute(error.message()) {
                    Some(attribute) => Self::Taken { attribute },
                    None => Self::Internal { problem },
                },
                code::BUSY
                | code::LOCKED
                | code::NO_MEMORY
                | code::READ_ONLY
                | code::IO_ERROR
                | code::FULL
                | code::CANNOT_OPEN
                | code::PROTOCOL => Self::Unavailable { problem },
                code::CORRUPT | code::NOT_A_DATABASE => Self::Damaged { what: "database", problem },
                _ => Self::Internal { problem },
            },
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Unavailable { problem }
            }
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Damaged { what: "row", problem },
            _ => Self::Internal { problem },
        }
    }
}

/// Which attribute a violated uniqueness belongs to: the message names columns, never values.
fn taken_attribute(message: &str) -> Option<&'static str> {
    let columns = message.strip_prefix("UNIQUE constraint failed: ")?;
    let is = |name: &str| columns.split(", ").any(|column| column == name);
    if is("users.user_name_fold") {
        Some("userName")
    } else if is("groups.display_name_fold") {
        Some("displayName")
    } else if is("users.external_id") || is("groups.external_id") {
        Some("externalId")
    } else if is("users.id") || is("groups.id") {
        Some("id")
    } else {
        None
    }
}
