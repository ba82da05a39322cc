//! Tables in the style of `kubectl`: no borders, three spaces between columns, one line per row.

use comfy_table::{Table, presets};
use jiff::Timestamp;

/// Style of errors.
pub(super) const BAD: &str = "\u{1b}[31m";
/// Style of warnings.
pub(super) const CAUTION: &str = "\u{1b}[33m";
/// Style of headers.
pub(super) const HEADER: &str = "\u{1b}[1m";
/// Resets the style.
pub(super) const RESET: &str = "\u{1b}[0m";

/// Style of a row on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Caution,
    Bad,
}

/// One row with its tone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(crate) tone: Tone,
    pub(crate) cells: Vec<String>,
}

/// The table as text, with a line feed after each line.
pub(super) fn render(header: &[&str], rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.cells.iter().map(|cell| one_line(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let mut text = String::new();
    for (n, line) in table.lines().enumerate() {
        let line = line.trim_end();
        let style = match n.checked_sub(1).and_then(|row| rows.get(row)).map(|row| row.tone) {
            _ if n == 0 => HEADER,
            Some(Tone::Bad) => BAD,
            Some(Tone::Caution) => CAUTION,
            _ => "",
        };
        let reset = if style.is_empty() { "" } else { RESET };
        text.push_str(style);
        text.push_str(line);
        text.push_str(reset);
        text.push('\n');
    }
    text
}

/// The text of a cell on one line: names pushed by an IdP must not move the cursor or break the table.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_direction_mark(c) { '\u{fffd}' } else { c }).collect()
}

/// True for characters that change the direction of the text around them.
fn is_direction_mark(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// The age in the style of `kubectl`: with two units where one would be too coarse.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |big: i64, unit: char, small: i64, lesser: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{lesser}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tone: Tone, cells: &[&str]) -> Row {
        Row { tone, cells: cells.iter().map(|&cell| cell.to_owned()).collect() }
    }

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_spaces() {
        let rows = [row(Tone::Plain, &["a", "long value", ""]), row(Tone::Bad, &["longer", "b", "c"])];
        let text = render(&["NAME", "VALUE", "LAST"], &rows);
        let plain: String = text.replace(HEADER, "").replace(BAD, "").replace(RESET, "");
        assert_eq!(plain, "NAME     VALUE        LAST\na        long value\nlonger   b            c\n");
        assert!(text.contains(&format!("{BAD}longer")));
    }

    #[test]
    fn a_pushed_name_cannot_break_the_line_or_steer_the_terminal() {
        let rows = [row(Tone::Plain, &["a\nb\u{1b}[2J\u{202e}c", "next"])];
        let text = render(&["NAME", "X"], &rows);
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("a\u{fffd}b\u{fffd}[2J\u{fffd}c   next"), "{text:?}");
    }

    #[test]
    fn ages_have_the_form_of_kubectl() {
        let now: Timestamp = "2027-01-31T12:00:00Z".parse().unwrap();
        for (seconds, said) in [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (40_000_000, "462d"),
        ] {
            let since = now - jiff::SignedDuration::from_secs(seconds);
            assert_eq!(age(since, now), said, "{seconds} seconds");
        }
    }
}
