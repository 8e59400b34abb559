//! What programs ask about files before and beside opening them, for the files of [`super::stub`]: that they exist, who may
//! use them, what kind they are; and `fopen`, whose own opening no other library sees.
//!
//! As with the functions that open, the C library is asked first, and the name is looked at where that finds nothing. A
//! descriptor is known by the inode of its socket, which duplicates share. What the kernel does with it is left to the
//! kernel: seeking fails with `ESPIPE`, `FIONREAD` and `FIONBIO` work, every other `ioctl` is refused.

use super::stub::{Next, errno, is_open, is_stub, open_stub, set_errno};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// A character device that its owner and group may read and write.
const MODE: u32 = libc::S_IFCHR | 0o660;

/// What `stat` says of a file of ours.
fn describe() -> libc::stat {
    // SAFETY: plain numbers, for all of which zero is a value.
    let mut told: libc::stat = unsafe { std::mem::zeroed() };
    told.st_mode = MODE;
    told.st_nlink = 1;
    // SAFETY: no arguments, and it cannot fail.
    told.st_uid = unsafe { libc::geteuid() };
    // SAFETY: as above.
    told.st_gid = unsafe { libc::getegid() };
    told.st_blksize = 4096;
    told
}

/// Whether what the C library has just answered about a path stands, or the file is ours.
///
/// # Safety
/// `path` is what the C library was asked about.
unsafe fn is_ours(answer: c_int, path: *const c_char) -> bool {
    if answer == 0 || errno() != libc::ENOENT {
        return false;
    }
    // The kernel has read the path: it is null or a C string.
    // SAFETY: by the line above.
    let ours = unsafe { is_stub(path) };
    if !ours {
        set_errno(libc::ENOENT);
    }
    ours
}

/// Makes a device of what was told of an open socket of ours.
///
/// # Safety
/// `told` has been filled in if the answer is 0.
unsafe fn open_file(answer: c_int, told: *mut libc::stat) -> c_int {
    if answer != 0 {
        return answer;
    }
    // SAFETY: by this function's contract.
    if let Some(told) = unsafe { told.as_mut() }
        && told.st_mode & libc::S_IFMT == libc::S_IFSOCK
        && is_open(told.st_ino)
    {
        let mut device = describe();
        (device.st_ino, device.st_dev) = (told.st_ino, told.st_dev);
        *told = device;
    }
    answer
}

/// The C library's function of a name, called with these arguments; `ENOSYS` where it has none.
macro_rules! native {
    ($name:literal, fn($($type:ty),*) -> c_int, $($arg:expr),*) => {{
        static NEXT: Next = Next::new($name);
        match NEXT.get() {
            Some(address) => {
                // SAFETY: the C library's function of this name has this type.
                let function = unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> c_int>(address)
                };
                // SAFETY: the caller keeps its contract.
                unsafe { function($($arg),*) }
            }
            None => {
                set_errno(libc::ENOSYS);
                -1
            }
        }
    }};
}

/// Functions that fill in a `struct stat` for a path. Where files are 64 bits wide, the names with 64 mean the same.
macro_rules! by_path {
    ($($symbol:literal $name:ident [$($before:ident: $type:ty)?];)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, for every file but ours.")]
            ///
            /// # Safety
            /// As the C library says of it.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(
                $($before: $type,)? path: *const c_char, told: *mut libc::stat
            ) -> c_int {
                let answer = native!(
                    $symbol,
                    fn($($type,)? *const c_char, *mut libc::stat) -> c_int,
                    $($before,)? path, told
                );
                // SAFETY: the path that was asked about; where it was found missing, room for the answer is the caller's.
                unsafe {
                    if is_ours(answer, path) && let Some(told) = told.as_mut() {
                        *told = describe();
                        return 0;
                    }
                }
                answer
            }
        )*
    };
}

by_path! {
    c"stat" stat [];
    c"stat64" stat64 [];
    c"lstat" lstat [];
    c"lstat64" lstat64 [];
    c"__xstat" __xstat [version: c_int];
    c"__xstat64" __xstat64 [version: c_int];
    c"__lxstat" __lxstat [version: c_int];
    c"__lxstat64" __lxstat64 [version: c_int];
}

/// Functions that fill in a `struct stat` for a path below a descriptor, or for that descriptor itself.
macro_rules! at {
    ($($symbol:literal $name:ident [$($before:ident: $type:ty)?];)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, for every file but ours.")]
            ///
            /// # Safety
            /// As the C library says of it.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(
                $($before: $type,)? dir: c_int, path: *const c_char, told: *mut libc::stat, flags: c_int
            ) -> c_int {
                let answer = native!(
                    $symbol,
                    fn($($type,)? c_int, *const c_char, *mut libc::stat, c_int) -> c_int,
                    $($before,)? dir, path, told, flags
                );
                // SAFETY: the path that was asked about, and room for the answer.
                unsafe {
                    if is_ours(answer, path) && let Some(told) = told.as_mut() {
                        *told = describe();
                        return 0;
                    }
                    open_file(answer, told)
                }
            }
        )*
    };
}

at! {
    c"fstatat" fstatat [];
    c"fstatat64" fstatat64 [];
    c"__fxstatat" __fxstatat [version: c_int];
    c"__fxstatat64" __fxstatat64 [version: c_int];
}

/// Functions that fill in a `struct stat` for a descriptor.
macro_rules! by_descriptor {
    ($($symbol:literal $name:ident [$($before:ident: $type:ty)?];)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, for every file but ours.")]
            ///
            /// # Safety
            /// As the C library says of it.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name($($before: $type,)? fd: c_int, told: *mut libc::stat) -> c_int {
                let answer = native!(
                    $symbol, fn($($type,)? c_int, *mut libc::stat) -> c_int, $($before,)? fd, told
                );
                // SAFETY: filled in where the answer is 0.
                unsafe { open_file(answer, told) }
            }
        )*
    };
}

by_descriptor! {
    c"fstat" fstat [];
    c"fstat64" fstat64 [];
    c"__fxstat" __fxstat [version: c_int];
    c"__fxstat64" __fxstat64 [version: c_int];
}

/// `statx` of the C library, for every file but ours.
///
/// # Safety
/// As the C library says of it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn statx(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mask: c_uint,
    told: *mut libc::statx,
) -> c_int {
    let answer = native!(
        c"statx",
        fn(c_int, *const c_char, c_int, c_uint, *mut libc::statx) -> c_int,
        dir,
        path,
        flags,
        mask,
        told
    );
    // SAFETY: the path that was asked about.
    let ours = unsafe { is_ours(answer, path) };
    // SAFETY: room for the answer, which is filled in where it was found.
    let Some(told) = (unsafe { told.as_mut() }) else { return answer };
    let socket = |mode: u16| u32::from(mode) & libc::S_IFMT == libc::S_IFSOCK;
    if ours || (answer == 0 && socket(told.stx_mode) && is_open(told.stx_ino)) {
        let device = describe();
        let inode = if ours { 0 } else { told.stx_ino };
        // SAFETY: plain numbers, for all of which zero is a value.
        *told = unsafe { std::mem::zeroed() };
        told.stx_mask = libc::STATX_BASIC_STATS;
        told.stx_mode = u16::try_from(device.st_mode).unwrap_or(0);
        told.stx_ino = inode;
        (told.stx_nlink, told.stx_uid, told.stx_gid) = (1, device.st_uid, device.st_gid);
        told.stx_blksize = 4096;
        return 0;
    }
    answer
}

/// What `access` says of a file of ours: all may be done with it but to run it.
fn permitted(mode: c_int) -> c_int {
    if mode & libc::X_OK == 0 {
        return 0;
    }
    set_errno(libc::EACCES);
    -1
}

/// Functions that tell whether a path may be used in a way.
macro_rules! permission {
    ($($symbol:literal $name:ident;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, for every file but ours.")]
            ///
            /// # Safety
            /// As the C library says of it.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(path: *const c_char, mode: c_int) -> c_int {
                let answer = native!($symbol, fn(*const c_char, c_int) -> c_int, path, mode);
                // SAFETY: the path that was asked about.
                let ours = unsafe { is_ours(answer, path) };
                if ours { permitted(mode) } else { answer }
            }
        )*
    };
}

permission! {
    c"access" access;
    c"eaccess" eaccess;
    c"euidaccess" euidaccess;
}

/// `faccessat` of the C library, for every file but ours.
///
/// # Safety
/// As the C library says of it.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn faccessat(
    dir: c_int,
    path: *const c_char,
    mode: c_int,
    flags: c_int,
) -> c_int {
    let answer =
        native!(c"faccessat", fn(c_int, *const c_char, c_int, c_int) -> c_int, dir, path, mode, flags);
    // SAFETY: the path that was asked about.
    if unsafe { is_ours(answer, path) } { permitted(mode) } else { answer }
}

/// The flags of `open` that a mode of `fopen` stands for, as far as a socket knows them.
fn flags(mode: &CStr) -> c_int {
    let has =
        |letter: u8| mode.to_bytes().split(|byte| *byte == b',').next().is_some_and(|m| m.contains(&letter));
    if has(b'e') { libc::O_RDWR | libc::O_CLOEXEC } else { libc::O_RDWR }
}

/// Functions that open a stream.
macro_rules! stream {
    ($($symbol:literal $name:ident;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of the C library, for every file but ours.")]
            ///
            /// # Safety
            /// As the C library says of it.
            #[unsafe(no_mangle)]
            pub(crate) unsafe extern "C" fn $name(path: *const c_char, mode: *const c_char) -> *mut libc::FILE {
                type Function = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut libc::FILE;
                static NEXT: Next = Next::new($symbol);
                // SAFETY: by the contract of the C library's function, both are C strings.
                let creates = unsafe { !mode.is_null() && matches!(mode.cast::<u8>().read(), b'w' | b'a') };
                // A mode that makes files would make an ordinary one.
                // SAFETY: as above.
                if !(creates && unsafe { is_stub(path) }) {
                    let Some(address) = NEXT.get() else {
                        set_errno(libc::ENOSYS);
                        return std::ptr::null_mut();
                    };
                    // SAFETY: the C library's function of this name has this type.
                    let function = unsafe { std::mem::transmute::<*mut c_void, Function>(address) };
                    // SAFETY: the caller keeps its contract.
                    let opened = unsafe { function(path, mode) };
                    // SAFETY: the path that was asked about.
                    if !opened.is_null() || !unsafe { is_ours(-1, path) } {
                        return opened;
                    }
                }
                // SAFETY: a mode that is not null was read above, and is a C string.
                let Some(wanted) = (unsafe { (!mode.is_null()).then(|| CStr::from_ptr(mode)) }) else {
                    set_errno(libc::EINVAL);
                    return std::ptr::null_mut();
                };
                let fd = open_stub(flags(wanted));
                if fd < 0 {
                    return std::ptr::null_mut();
                }
                // SAFETY: a descriptor of ours and a C string.
                let opened = unsafe { libc::fdopen(fd, mode) };
                if opened.is_null() {
                    let why = errno();
                    // SAFETY: a descriptor of ours, which nobody has seen.
                    unsafe { libc::close(fd) };
                    set_errno(why);
                }
                opened
            }
        )*
    };
}

stream! {
    c"fopen" fopen;
    c"fopen64" fopen64;
}
