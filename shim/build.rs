//! Gives the library the soname by which programs look for the driver. Measured: without it,
//! neither `dlopen("libcuda.so.1")` nor a `NEEDED` entry of that name finds a preloaded library.
fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rerun-if-changed=build.rs");
}
