//! Formats what a kernel prints (CUDA C++ Programming Guide, "Formatted Output"), with the result that the host's
//! own `printf` would give.
//!
//! Called with the two operands of the device function `vprintf`. Numbers are formatted by the C library, one
//! conversion at a time and never with a format that the kernel controls: the specification handed to `snprintf`
//! is assembled here from known letters, so `%n` and missing arguments cannot reach it.

use libc::{c_char, c_int};

/// Greatest field width and precision. A kernel may ask for 2^31 blanks; nobody wants them.
const MAX_WIDTH: i32 = 1 << 16;

/// The text of one `printf`.
///
/// `fmt` is the format, up to its end or its first NUL. `args` is the argument buffer of `vprintf`: each argument
/// at the next multiple of its size, 4 bytes for `int` and what is promoted to it, 8 for `long`, `long long`,
/// `size_t`, `double` and pointers. `read_string` brings the bytes, without NUL, of the string at a device
/// address; `None` if there is none.
///
/// A conversion that is unknown, or for which `args` is too short, is printed as it stands.
pub fn format(fmt: &[u8], args: &[u8], read_string: &mut dyn FnMut(u64) -> Option<Vec<u8>>) -> Vec<u8> {
    let fmt = fmt.split(|b| *b == 0).next().unwrap_or_default();
    let mut args = Args { bytes: args, at: 0 };
    let mut text = Vec::with_capacity(fmt.len() + 32);
    let mut rest = fmt;
    while let Some(percent) = rest.iter().position(|b| *b == b'%') {
        text.extend_from_slice(&rest[..percent]);
        rest = &rest[percent..];
        let mut scan = Scan { bytes: rest, at: 1 };
        match convert(&mut scan, &mut args, read_string) {
            Some(field) => text.extend_from_slice(&field),
            None => text.extend_from_slice(&rest[..scan.at]),
        }
        rest = &rest[scan.at..];
    }
    text.extend_from_slice(rest);
    text
}

/// The argument buffer.
struct Args<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Args<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let at = self.at.next_multiple_of(N);
        let value = self.bytes.get(at..at + N)?.try_into().ok()?;
        self.at = at + N;
        Some(value)
    }
    fn int(&mut self) -> Option<i32> {
        self.take().map(i32::from_le_bytes)
    }
    fn long(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
    fn double(&mut self) -> Option<f64> {
        self.take().map(f64::from_le_bytes)
    }
}

/// The format, from a percent sign on.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }
    /// A decimal number; 0 if there is none.
    fn number(&mut self) -> i32 {
        let mut n = 0i32;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            n = n.saturating_mul(10).saturating_add(i32::from(digit - b'0'));
            self.at += 1;
        }
        n
    }
}

/// Flags, width and precision of a conversion.
#[derive(Debug, Default)]
struct Field {
    flags: Vec<u8>,
    /// 0 if not given.
    width: c_int,
    /// -1 if not given.
    precision: c_int,
}

/// How many bytes the integer argument has, and the length modifier by which the C library is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Char,
    Short,
    Int,
    Long,
}

/// One conversion, the percent sign read; `None` if it is to be printed as it stands. `scan` ends behind it.
fn convert(
    scan: &mut Scan<'_>,
    args: &mut Args<'_>,
    read_string: &mut dyn FnMut(u64) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut field = Field { precision: -1, ..Field::default() };
    while let Some(flag) = scan.peek().filter(|b| b"-+ #0".contains(b)) {
        if !field.flags.contains(&flag) {
            field.flags.push(flag);
        }
        scan.at += 1;
    }
    if scan.peek() == Some(b'*') {
        scan.at += 1;
        field.width = args.int()?;
        if field.width < 0 {
            // A negative width is the flag for left alignment and a width.
            field.flags.push(b'-');
            field.width = field.width.saturating_neg();
        }
    } else {
        field.width = scan.number();
    }
    if scan.peek() == Some(b'.') {
        scan.at += 1;
        if scan.peek() == Some(b'*') {
            scan.at += 1;
            field.precision = args.int()?.max(-1);
        } else {
            field.precision = scan.number();
        }
    }
    field.width = field.width.min(MAX_WIDTH);
    field.precision = field.precision.min(MAX_WIDTH);
    let length = length(scan);
    let letter = scan.next()?;
    match letter {
        b'%' => Some(vec![b'%']),
        b'd' | b'i' | b'o' | b'u' | b'x' | b'X' => match length {
            Length::Long => Some(field.long(letter, args.long()?)),
            _ => Some(field.int(length, letter, args.int()?)),
        },
        b'c' => {
            let [byte, ..] = args.int()?.to_le_bytes();
            Some(field.pad(&[byte]))
        }
        b'e' | b'E' | b'f' | b'F' | b'g' | b'G' | b'a' | b'A' => Some(field.double(letter, args.double()?)),
        b'p' => {
            let address = args.long()?.cast_unsigned();
            if address == 0 { Some(field.pad(b"(nil)")) } else { Some(field.pointer(address)) }
        }
        b's' => Some(field.string(args.long()?.cast_unsigned(), read_string)),
        _ => None,
    }
}

/// The length modifier.
fn length(scan: &mut Scan<'_>) -> Length {
    let doubled = |scan: &mut Scan<'_>, letter| {
        let twice = scan.peek() == Some(letter);
        scan.at += usize::from(twice);
        twice
    };
    let Some(letter) = scan.peek() else { return Length::Int };
    match letter {
        b'h' => {
            scan.at += 1;
            if doubled(scan, b'h') { Length::Char } else { Length::Short }
        }
        b'l' => {
            scan.at += 1;
            doubled(scan, b'l');
            Length::Long
        }
        // `L` belongs to `long double`, which device code does not have; it does no harm.
        b'z' | b'j' | b't' | b'q' | b'L' => {
            scan.at += 1;
            Length::Long
        }
        _ => Length::Int,
    }
}

impl Field {
    /// The specification for the C library: width and precision as arguments, so that no number is spelt out.
    fn specification(&self, length: &[u8], letter: u8) -> Vec<u8> {
        [b"%", self.flags.as_slice(), b"*.*", length, &[letter, 0]].concat()
    }

    fn int(&self, length: Length, letter: u8, value: i32) -> Vec<u8> {
        let modifier: &[u8] = match length {
            Length::Char => b"hh",
            Length::Short => b"h",
            Length::Int | Length::Long => b"",
        };
        let spec = self.specification(modifier, letter);
        printed(|buffer, size| {
            // SAFETY: `spec` is NUL-terminated and takes two ints and an int, which are there; `printed` vouches
            // for `buffer` and `size`.
            unsafe { libc::snprintf(buffer, size, spec.as_ptr().cast(), self.width, self.precision, value) }
        })
    }

    fn long(&self, letter: u8, value: i64) -> Vec<u8> {
        let spec = self.specification(b"ll", letter);
        printed(|buffer, size| {
            // SAFETY: `spec` is NUL-terminated and takes two ints and a long long, which are there; `printed`
            // vouches for `buffer` and `size`.
            unsafe { libc::snprintf(buffer, size, spec.as_ptr().cast(), self.width, self.precision, value) }
        })
    }

    fn double(&self, letter: u8, value: f64) -> Vec<u8> {
        let spec = self.specification(b"", letter);
        printed(|buffer, size| {
            // SAFETY: `spec` is NUL-terminated and takes two ints and a double, which are there; `printed` vouches
            // for `buffer` and `size`.
            unsafe { libc::snprintf(buffer, size, spec.as_ptr().cast(), self.width, self.precision, value) }
        })
    }

    /// A pointer that is not null: as the C library prints it, `%#lx`.
    fn pointer(mut self, address: u64) -> Vec<u8> {
        if !self.flags.contains(&b'#') {
            self.flags.push(b'#');
        }
        self.long(b'x', address.cast_signed())
    }

    /// The string at a device address, cut to the precision.
    fn string(&self, address: u64, read_string: &mut dyn FnMut(u64) -> Option<Vec<u8>>) -> Vec<u8> {
        let precision = usize::try_from(self.precision).ok();
        if address == 0 {
            // As the C library: whole or not at all.
            return self.pad(if precision.is_some_and(|p| p < 6) { b"" } else { b"(null)" });
        }
        let Some(mut string) = read_string(address) else {
            return self.pad(format!("(no string at {address:#x})").as_bytes());
        };
        string.truncate(precision.unwrap_or(usize::MAX));
        self.pad(&string)
    }

    /// Pads to the width with blanks.
    fn pad(&self, text: &[u8]) -> Vec<u8> {
        let blanks = usize::try_from(self.width).unwrap_or(0).saturating_sub(text.len());
        let mut field = Vec::with_capacity(text.len() + blanks);
        if self.flags.contains(&b'-') {
            field.extend_from_slice(text);
            field.resize(text.len() + blanks, b' ');
        } else {
            field.resize(blanks, b' ');
            field.extend_from_slice(text);
        }
        field
    }
}

/// What `print` writes, given a buffer of sufficient size. It gets a valid buffer and its size, and answers how
/// much it would have written, as `snprintf` does.
fn printed(print: impl Fn(*mut c_char, usize) -> c_int) -> Vec<u8> {
    // Enough for any number without width; a second attempt fits whatever it is, the NUL included.
    let mut buffer = vec![0u8; 64];
    for _ in 0..2 {
        let length = usize::try_from(print(buffer.as_mut_ptr().cast(), buffer.len())).unwrap_or(0);
        if length < buffer.len() {
            buffer.truncate(length);
            return buffer;
        }
        buffer.resize(length + 1, 0);
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An argument buffer, laid out as `vprintf` has it.
    #[derive(Default)]
    struct Buffer(Vec<u8>);

    impl Buffer {
        fn push<const N: usize>(mut self, bytes: [u8; N]) -> Self {
            self.0.resize(self.0.len().next_multiple_of(N), 0);
            self.0.extend(bytes);
            self
        }
        fn int(self, v: i32) -> Self {
            self.push(v.to_le_bytes())
        }
        fn long(self, v: i64) -> Self {
            self.push(v.to_le_bytes())
        }
        fn double(self, v: f64) -> Self {
            self.push(v.to_le_bytes())
        }
    }

    fn strings(address: u64) -> Option<Vec<u8>> {
        match address {
            0x1000 => Some(b"hello".to_vec()),
            0x2000 => Some(Vec::new()),
            _ => None,
        }
    }

    #[expect(clippy::needless_pass_by_value, reason = "called with a buffer made in place")]
    fn text(fmt: &str, args: Buffer) -> String {
        String::from_utf8(format(fmt.as_bytes(), &args.0, &mut strings)).unwrap()
    }

    fn none() -> Buffer {
        Buffer::default()
    }

    #[test]
    fn plain_text_and_percent() {
        assert_eq!(text("100%% of it\n", none()), "100% of it\n");
        assert_eq!(text("", none()), "");
        assert_eq!(text("cut\0off", none()), "cut");
        assert_eq!(format(b"\xff\xfe%d", &1i32.to_le_bytes(), &mut strings), b"\xff\xfe1");
    }

    #[test]
    fn integers() {
        assert_eq!(text("%d %i %u", none().int(-5).int(7).int(-1)), "-5 7 4294967295");
        assert_eq!(
            text("%o %x %X %#x %#o", none().int(8).int(255).int(255).int(255).int(8)),
            "10 ff FF 0xff 010"
        );
        assert_eq!(
            text("[%5d|%-5d|%05d|%+d|% d]", none().int(1).int(2).int(3).int(4).int(5)),
            "[    1|2    |00003|+4| 5]"
        );
        assert_eq!(
            text("[%.3d|%8.3d|%-8.3d|%.0d]", none().int(7).int(7).int(7).int(0)),
            "[007|     007|007     |]"
        );
        assert_eq!(
            text("%hhd %hd %hu %hhx", none().int(0x1ff).int(0x1_8000).int(-1).int(-1)),
            "-1 -32768 65535 ff"
        );
        assert_eq!(
            text("%ld %lld %lu", none().long(i64::MIN).long(-1).long(-1)),
            format!("{} -1 {}", i64::MIN, u64::MAX)
        );
        assert_eq!(text("%zu %jd %td %lx", none().long(1).long(-2).long(3).long(255)), "1 -2 3 ff");
    }

    #[test]
    fn arguments_are_aligned_to_their_size() {
        let args = none().int(1).long(2).int(3).double(0.5).int(4);
        assert_eq!(args.0.len(), 36);
        assert_eq!(text("%d %lld %d %g %d", args), "1 2 3 0.5 4");
    }

    #[test]
    fn widths_and_precisions_from_arguments() {
        assert_eq!(text("[%*d]", none().int(5).int(42)), "[   42]");
        assert_eq!(text("[%*d]", none().int(-5).int(42)), "[42   ]");
        assert_eq!(text("[%.*f]", none().int(2).double(1.0 / 3.0)), "[0.33]");
        assert_eq!(text("[%*.*f]", none().int(8).int(-1).double(0.5)), "[0.500000]");
        assert_eq!(text("[%*.*f]", none().int(9).int(-1).double(0.5)), "[ 0.500000]");
        assert_eq!(text("[%-*.*s]", none().int(6).int(3).long(0x1000)), "[hel   ]");
    }

    #[test]
    fn floating_point() {
        let args = none().double(1.5).double(-0.001).double(12345.678).double(1e100).double(0.1);
        assert_eq!(
            text("%f %e %G %g %.17g", args),
            "1.500000 -1.000000e-03 12345.7 1e+100 0.10000000000000001"
        );
        assert_eq!(text("%a %A", none().double(1.0).double(-10.5)), "0x1p+0 -0X1.5P+3");
        assert_eq!(
            text("%f %F %e", none().double(f64::INFINITY).double(f64::NEG_INFINITY).double(f64::NAN)),
            "inf -INF nan"
        );
        assert_eq!(
            text("[%08.3f|%-9.2f|%+.1e|%#.0f]", none().double(3.14259).double(2.5).double(1.0).double(3.0)),
            "[0003.143|2.50     |+1.0e+00|3.]"
        );
        assert_eq!(text("%f", none().double(1e300)).len(), 308);
        assert_eq!(
            text("%.55f", none().double(0.1)),
            "0.1000000000000000055511151231257827021181583404541015625"
        );
        assert_eq!(text("%Lf", none().double(2.0)), "2.000000");
    }

    #[test]
    fn characters_strings_and_pointers() {
        assert_eq!(text("%c%c|%3c|%-3c|", none().int(72).int(105).int(33).int(33)), "Hi|  !|!  |");
        assert_eq!(
            text(
                "%s|%8s|%-8s|%.2s|%s|",
                none().long(0x1000).long(0x1000).long(0x1000).long(0x1000).long(0x2000)
            ),
            "hello|   hello|hello   |he||"
        );
        assert_eq!(text("%s|%.3s|%s", none().long(0).long(0).long(0xdead)), "(null)||(no string at 0xdead)");
        assert_eq!(
            text("%p %18p|%-10p|%p", none().long(0x7f00_1234).long(0x7f00_1234).long(16).long(0)),
            "0x7f001234         0x7f001234|0x10      |(nil)"
        );
    }

    #[test]
    fn what_cannot_be_converted_stands() {
        assert_eq!(text("%n %k %", none().long(0)), "%n %k %");
        assert_eq!(text("%d and %-5lld|%s", none().int(1)), "1 and %-5lld|%s");
        assert_eq!(text("%", none()), "%");
        assert_eq!(text("%5.", none()), "%5.");
        assert_eq!(text("%*d", none()), "%*d");
    }

    #[test]
    fn enormous_widths_are_cut() {
        assert_eq!(text("%2147483647d", none().int(1)).len(), 65536);
        assert_eq!(text("%99999999999999999999.3d", none().int(1)).len(), 65536);
        assert_eq!(text("%*d", none().int(i32::MIN).int(1)).len(), 65536);
        assert_eq!(text("%.2147483647d", none().int(1)).len(), 65536);
    }
}
