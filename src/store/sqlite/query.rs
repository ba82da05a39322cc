//! Statements and rows: converts columns to values, and errors of SQLite to errors of the store.

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, ffi};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::model::ProviderName;
use crate::store::StoreError;

/// Number of prepared statements cached per connection: more than there are statements.
pub(super) const STATEMENTS: usize = 300;

/// Runs cached prepared statements.
pub(super) trait Query {
    /// Runs a statement without rows; returns the number of changed rows.
    fn run(&self, sql: &str, params: impl Params) -> Result<u64, StoreError>;

    /// Calls `each` with every row. `what` names them in [`StoreError::Damaged`].
    fn each(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        each: impl FnMut(Columns<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// All rows.
    fn all<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&mut Columns<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut rows = Vec::new();
        self.each(what, sql, params, |mut columns| {
            rows.push(read(&mut columns)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first row, if there is one.
    fn first<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&mut Columns<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError>;

    /// The row of a statement that always returns one.
    fn one<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&mut Columns<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let missing = || StoreError::Internal { problem: format!("a statement on `{what}` has no row") };
        self.first(what, sql, params, read)?.ok_or_else(missing)
    }
}

impl Query for Connection {
    fn run(&self, sql: &str, params: impl Params) -> Result<u64, StoreError> {
        Ok(self.prepare_cached(sql)?.execute(params)? as u64)
    }

    fn each(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        mut each: impl FnMut(Columns<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(row) = rows.next()? {
            each(Columns::of(row, what))?;
        }
        Ok(())
    }

    fn first<T>(
        &self,
        what: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&mut Columns<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(|row| read(&mut Columns::of(row, what))).transpose()
    }
}

/// Reads the columns of a row in their order; an unexpected value is [`StoreError::Damaged`].
pub(super) struct Columns<'r> {
    row: &'r rusqlite::Row<'r>,
    next: usize,
    what: &'static str,
}

impl<'r> Columns<'r> {
    fn of(row: &'r rusqlite::Row<'r>, what: &'static str) -> Self {
        Self { row, next: 0, what }
    }

    fn damaged(&self, problem: &impl ToString) -> StoreError {
        StoreError::Damaged { what: self.what, problem: problem.to_string() }
    }

    /// A value, as `read` takes it; none for NULL.
    fn optional<T>(
        &mut self,
        expected: &str,
        read: impl FnOnce(ValueRef<'r>) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let value = self.row.get_ref(self.next)?;
        self.next += 1;
        if value == ValueRef::Null {
            return Ok(None);
        }
        let mistyped = || self.damaged(&format!("a column holds {} instead of {expected}", value.data_type()));
        read(value).map(Some).ok_or_else(mistyped)
    }

    fn required<T>(&self, value: Option<T>) -> Result<T, StoreError> {
        value.ok_or_else(|| self.damaged(&"a column is empty"))
    }

    /// A text that is needed only while the row is read.
    pub(super) fn text_ref_or_none(&mut self) -> Result<Option<&'r str>, StoreError> {
        let bytes = self.optional("text", |value| match value {
            ValueRef::Text(text) => Some(text),
            _ => None,
        })?;
        bytes.map(std::str::from_utf8).transpose().map_err(|error| self.damaged(&error))
    }

    pub(super) fn text_ref(&mut self) -> Result<&'r str, StoreError> {
        let text = self.text_ref_or_none()?;
        self.required(text)
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.text_ref().map(str::to_owned)
    }

    pub(super) fn text_or_none(&mut self) -> Result<Option<String>, StoreError> {
        Ok(self.text_ref_or_none()?.map(str::to_owned))
    }

    pub(super) fn integer(&mut self) -> Result<i64, StoreError> {
        let number = self.integer_or_none()?;
        self.required(number)
    }

    pub(super) fn integer_or_none(&mut self) -> Result<Option<i64>, StoreError> {
        self.optional("a number", |value| match value {
            ValueRef::Integer(number) => Some(number),
            _ => None,
        })
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.integer()? != 0)
    }

    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let number = self.integer()?;
        u64::try_from(number).map_err(|error| self.damaged(&error))
    }

    pub(super) fn time(&mut self) -> Result<Timestamp, StoreError> {
        let time = self.time_or_none()?;
        self.required(time)
    }

    pub(super) fn time_or_none(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let number = self.integer_or_none()?;
        let time = number.map(|number| Timestamp::from_nanosecond(i128::from(number)));
        time.transpose().map_err(|error| self.damaged(&error))
    }

    pub(super) fn id(&mut self) -> Result<Uuid, StoreError> {
        let id = self.id_or_none()?;
        self.required(id)
    }

    pub(super) fn id_or_none(&mut self) -> Result<Option<Uuid>, StoreError> {
        let bytes = self.optional("an id", |value| match value {
            ValueRef::Blob(bytes) => Some(bytes),
            _ => None,
        })?;
        bytes.map(Uuid::from_slice).transpose().map_err(|error| self.damaged(&error))
    }

    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let value = self.json_or_none()?;
        self.required(value)
    }

    pub(super) fn json_or_none<T: DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let text = self.text_ref_or_none()?;
        text.map(serde_json::from_str).transpose().map_err(|error| self.damaged(&error))
    }

    /// A column whose text is validated by the target type.
    pub(super) fn parse<T>(&mut self) -> Result<T, StoreError>
    where
        T: TryFrom<String, Error: ToString>,
    {
        let value = self.parse_or_none()?;
        self.required(value)
    }

    pub(super) fn parse_or_none<T>(&mut self) -> Result<Option<T>, StoreError>
    where
        T: TryFrom<String, Error: ToString>,
    {
        self.text_or_none()?.map(T::try_from).transpose().map_err(|error| self.damaged(&error))
    }

    pub(super) fn provider(&mut self) -> Result<ProviderName, StoreError> {
        self.parse()
    }

    /// A column that contains one of a few words.
    pub(super) fn word<T>(&mut self, from: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let value = self.word_or_none(from)?;
        self.required(value)
    }

    /// Like [`Columns::word`], for a column that may be empty.
    pub(super) fn word_or_none<T>(&mut self, from: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, StoreError> {
        let Some(word) = self.text_ref_or_none()? else { return Ok(None) };
        from(word).map(Some).ok_or_else(|| self.damaged(&format!("`{word}` is not a word of this column")))
    }
}

/// The SQLite result code of an error.
fn result_code(error: &rusqlite::Error) -> Option<&ffi::Error> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => Some(error),
        _ => None,
    }
}

/// True when the file itself is at fault: not a database, or damaged.
pub(super) fn is_not_a_database(error: &rusqlite::Error) -> bool {
    let code = result_code(error).map(|error| error.code);
    matches!(code, Some(ffi::ErrorCode::NotADatabase | ffi::ErrorCode::DatabaseCorrupt))
}

/// True when a unique value exists already.
pub(super) fn is_unique_violation(error: &rusqlite::Error) -> bool {
    let unique = [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_CONSTRAINT_PRIMARYKEY];
    result_code(error).is_some_and(|error| unique.contains(&error.extended_code))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use ffi::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, FileLockingProtocolFailed,
            NotADatabase, OutOfMemory, ReadOnly, SystemIoFailure,
        };
        let problem = error.to_string();
        match (result_code(&error).map(|error| error.code), error) {
            (
                Some(
                    DatabaseBusy
                    | DatabaseLocked
                    | OutOfMemory
                    | ReadOnly
                    | SystemIoFailure
                    | DiskFull
                    | CannotOpen
                    | FileLockingProtocolFailed,
                ),
                _,
            ) => Self::Unavailable { problem },
            (Some(DatabaseCorrupt | NotADatabase), _) => Self::Damaged { what: "database", problem },
            (
                None,
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::Utf8Error(..)
                | rusqlite::Error::InvalidColumnType(..),
            ) => Self::Damaged { what: "row", problem },
            _ => Self::Internal { problem },
        }
    }
}
