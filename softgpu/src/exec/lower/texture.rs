//! Texture and surface instructions (PTX ISA sections "Texture Instructions" and "Surface Instructions"): tex, tld4, txq,
//! suld.b, sust.b, suq, on objects whose 64-bit value a register holds. What a read gives is [`crate::device::texture`]'s.

use std::sync::Arc;

use super::modifiers::Modifiers;
use super::{AuxLow, Class, Lower, Result, V};
use crate::device::texture::{self, Access, Clamp, Coordinate, Fetch, Geometry, Object, Query};
use crate::exec::aux::Data;
use crate::exec::fault::FaultKind;
use crate::exec::memory_ops::{deposit, withdraw};
use crate::exec::op::{Cx, Exec, Flow, Inst, Lanes, Mask, common, lane, set_lane, write_pred};
use crate::ptx::Ty;
use crate::ptx::ast::{Base, Instruction, Operand};

/// How a texture read finds its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec) enum LevelFrom {
    /// The first.
    Base,
    /// A number after the coordinates.
    Number,
    /// Two vectors of derivatives after the coordinates.
    Gradients,
}

/// What a texture or surface instruction needs besides registers. `uses` holds the layer, where there is one, then the
/// coordinates, then the rest.
#[derive(Debug, Clone)]
pub(in crate::exec) enum TextureOp {
    /// `tex` and `tld4`.
    Sample { geometry: Geometry, integer: bool, level: LevelFrom, gather: Option<u8> },
    /// `suld.b` and `sust.b`: bytes and bits of each element.
    Surface { geometry: Geometry, clamp: Clamp, bytes: u32 },
    /// `txq` and `suq`.
    Query(Query),
}

/// Coordinates of a shape, and whether a layer comes before them.
fn coordinates(geometry: Geometry) -> (usize, bool) {
    match geometry {
        Geometry::D1 => (1, false),
        Geometry::D2 => (2, false),
        Geometry::D3 | Geometry::Cube => (3, false),
        Geometry::A1 => (1, true),
        Geometry::A2 => (2, true),
        Geometry::CubeArray => (3, true),
    }
}

/// The objects that the lanes of an instruction name: mostly one.
#[derive(Default)]
struct Found(Option<(u64, Arc<Object>)>);

impl Found {
    fn get(&mut self, value: u64) -> Option<&Object> {
        if self.0.as_ref().is_none_or(|(known, _)| *known != value) {
            self.0 = texture::find(value).map(|object| (value, object));
        }
        self.0.as_ref().map(|(_, object)| object.as_ref())
    }
}

fn description<'c>(cx: &Cx<'c>, inst: &Inst) -> (&'c [u32], &'c [u32], Option<&'c TextureOp>) {
    let aux = &cx.aux[inst.aux as usize];
    match &aux.data {
        Data::Texture(op) => (&aux.defs, &aux.uses, Some(op)),
        _ => (&aux.defs, &aux.uses, None),
    }
}

fn no_object(cx: &mut Cx<'_>, at: usize, value: u64, what: &str) -> Flow {
    cx.fail(FaultKind::IllegalInstruction, at, format!("{what}: {value:#x} is no live object of that kind"))
}

/// `tex` and `tld4`: `d` is the predicate that says that all texels are resident, where there is one.
struct Sample;
impl Exec for Sample {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (defs, uses, Some(TextureOp::Sample { geometry, integer, level, gather })) =
            description(cx, inst)
        else {
            return Flow::Next;
        };
        let (sides, layered) = coordinates(*geometry);
        let mut found = Found::default();
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            let value = unsafe { lane::<u64>(cx, inst.a, at) };
            let Some(object) = found.get(value) else { return no_object(cx, at, value, "texture read") };
            // SAFETY: as above; lowering has checked how many operands there are.
            let word = |index: usize| unsafe { lane::<u32>(cx, uses[index], at) };
            let first = usize::from(layered);
            let three = |from: usize| -> [u32; 3] {
                std::array::from_fn(|side| if side < sides { word(from + side) } else { 0 })
            };
            let place = three(first);
            let behind = first + sides;
            let level = match level {
                LevelFrom::Base => None,
                LevelFrom::Number => Some(f32::from_bits(word(behind))),
                LevelFrom::Gradients => {
                    let [dx, dy] =
                        [three(behind), three(behind + sides)].map(|bits| bits.map(f32::from_bits));
                    Some(object.gradient_level(*geometry, place.map(f32::from_bits), [dx, dy]))
                }
            };
            let fetch = Fetch {
                geometry: *geometry,
                layer: if layered { word(0) } else { 0 },
                at: if *integer {
                    Coordinate::Int(place.map(u32::cast_signed))
                } else {
                    Coordinate::Float(place.map(f32::from_bits))
                },
                level,
                gather: *gather,
            };
            let Some(texel) = object.fetch(&fetch) else { return no_object(cx, at, value, "texture read") };
            for (slot, channel) in defs.iter().zip(texel) {
                // SAFETY: as above.
                unsafe { set_lane(cx, *slot, at, channel) };
            }
        }
        if inst.imm == 1 {
            // SAFETY: the caller's promise (`OpFn`).
            unsafe { write_pred(cx, inst.d, mask, mask) };
        }
        Flow::Next
    }
}

/// `suld.b` (registers in `defs`) and `sust.b` (registers behind the coordinates).
struct Surface;
impl Exec for Surface {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (defs, uses, Some(TextureOp::Surface { geometry, clamp, bytes })) = description(cx, inst) else {
            return Flow::Next;
        };
        let (sides, layered) = coordinates(*geometry);
        let (places, values) = uses.split_at(usize::from(layered) + sides);
        let (each, width) = (*bytes as usize, bytes * 8);
        let mut found = Found::default();
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            let value = unsafe { lane::<u64>(cx, inst.a, at) };
            let Some(object) = found.get(value) else { return no_object(cx, at, value, "surface access") };
            // SAFETY: as above.
            let word = |index: usize| unsafe { lane::<u32>(cx, places[index], at) };
            let first = usize::from(layered);
            let access = Access {
                geometry: *geometry,
                layer: if layered { word(0) } else { 0 },
                at: std::array::from_fn(
                    |side| if side < sides { word(first + side).cast_signed() } else { 0 },
                ),
                clamp: *clamp,
            };
            let mut data = [0u8; 32];
            let count = defs.len().max(values.len());
            let data = &mut data[..each * count];
            for (slot, out) in values.iter().zip(data.chunks_exact_mut(each)) {
                // SAFETY: as above.
                let value = unsafe { withdraw(cx, *slot, at, width) };
                out.copy_from_slice(&value.to_le_bytes()[..each]);
            }
            let done =
                if values.is_empty() { object.load(&access, data) } else { object.store(&access, data) };
            if done.is_none() {
                let [x, y, z] = access.at;
                let text =
                    format!("surface access at byte {x}, row {y}, plane {z} of layer {}", access.layer);
                return cx.fail(FaultKind::Trap, at, format!("{text} is outside"));
            }
            for (slot, bytes) in defs.iter().zip(data.chunks_exact(each)) {
                let mut word = [0u8; 8];
                word[..each].copy_from_slice(bytes);
                // SAFETY: as above.
                unsafe { deposit(cx, *slot, at, width, u64::from_le_bytes(word)) };
            }
        }
        Flow::Next
    }
}

/// `txq` and `suq`.
struct Ask;
impl Exec for Ask {
    unsafe fn exec(cx: &mut Cx<'_>, inst: &Inst, mask: Mask) -> Flow {
        let (_, _, Some(TextureOp::Query(what))) = description(cx, inst) else { return Flow::Next };
        for at in Lanes(mask) {
            // SAFETY: the caller's promise (`OpFn`).
            let value = unsafe { lane::<u64>(cx, inst.a, at) };
            let Some(answer) = texture::query(value, *what) else { return no_object(cx, at, value, "query") };
            // SAFETY: as above.
            unsafe { set_lane(cx, inst.d, at, answer) };
        }
        Flow::Next
    }
}

fn geometry(name: &str) -> Option<Geometry> {
    Some(match name {
        "1d" => Geometry::D1,
        "2d" => Geometry::D2,
        "3d" => Geometry::D3,
        "a1d" => Geometry::A1,
        "a2d" => Geometry::A2,
        "cube" => Geometry::Cube,
        "acube" => Geometry::CubeArray,
        _ => return None,
    })
}

fn query(name: &str) -> Option<Query> {
    Some(match name {
        "width" => Query::Width,
        "height" => Query::Height,
        "depth" => Query::Depth,
        "channel_data_type" => Query::ChannelDataType,
        "channel_order" => Query::ChannelOrder,
        "normalized_coords" => Query::NormalizedCoords,
        "array_size" => Query::ArraySize,
        "num_mipmap_levels" => Query::NumMipmapLevels,
        "filter_mode" => Query::FilterMode,
        "addr_mode_0" => Query::AddrMode(0),
        "addr_mode_1" => Query::AddrMode(1),
        "addr_mode_2" => Query::AddrMode(2),
        _ => return None,
    })
}

/// Modifiers that say where data should be cached.
fn cache_hint(name: &str) -> bool {
    matches!(name, "ca" | "cg" | "cs" | "cv" | "wb" | "wt") || name.starts_with("L2::")
}

impl<'a> Lower<'_, 'a> {
    /// Lowers texture and surface instructions; false when the opcode belongs elsewhere.
    pub(super) fn texture(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<bool> {
        match i.opcode {
            "tex" => {
                let level = match m.one_of(&["base", "level", "grad"]) {
                    Some("level") => LevelFrom::Number,
                    Some("grad") => LevelFrom::Gradients,
                    _ => LevelFrom::Base,
                };
                self.sample(i, m, level, None)?;
            }
            "tld4" => {
                let gather = match m.one_of(&["r", "g", "b", "a"]) {
                    Some("r") => 0,
                    Some("g") => 1,
                    Some("b") => 2,
                    Some(_) => 3,
                    None => return m.error("the component is missing"),
                };
                self.sample(i, m, LevelFrom::Base, Some(gather))?;
            }
            "suld" | "sust" => self.surface(i, m)?,
            "txq" | "suq" => self.ask(i, m)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn geometry(&self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<Geometry> {
        if m.has("2dms") || m.has("a2dms") {
            return self.unsupported(i);
        }
        match m.take(geometry) {
            Some(geometry) => Ok(geometry),
            None => m.error("the geometry is missing"),
        }
    }

    /// The object of `[object, coordinates]`, and the registers of its layer and coordinates.
    fn place(
        &mut self,
        i: &Instruction<'a>,
        operand: &Operand<'a>,
        geometry: Geometry,
        ty: Ty,
    ) -> Result<(V, Vec<V>)> {
        let Operand::Handle(parts) = operand else {
            return self.error(format!("instruction {} lacks its coordinates", i.spelled()));
        };
        let [object, at] = parts.as_slice() else {
            return self
                .error(format!("instruction {}: samplers of their own are not supported", i.spelled()));
        };
        let object = self.object(i, object)?;
        let list = self.elements(at);
        let (sides, layered) = coordinates(geometry);
        let needed = usize::from(layered) + sides;
        if list.len() < needed {
            return self.error(format!("instruction {} has {} coordinates", i.spelled(), list.len()));
        }
        let mut registers = Vec::new();
        for (index, operand) in list.iter().take(needed).enumerate() {
            let ty = if layered && index == 0 { Ty::U32 } else { ty };
            registers.push(self.value(operand, ty)?);
        }
        Ok((object, registers))
    }

    /// The register that holds an object.
    fn object(&mut self, i: &Instruction<'a>, operand: &Operand<'a>) -> Result<V> {
        if self.declared(operand).is_none() {
            return self.error(format!(
                "instruction {}: texture and surface references are not supported, objects are",
                i.spelled()
            ));
        }
        self.value(operand, Ty::U64)
    }

    fn sample(
        &mut self,
        i: &Instruction<'a>,
        m: &mut Modifiers<'_, 'a>,
        level: LevelFrom,
        gather: Option<u8>,
    ) -> Result<()> {
        let geometry = self.geometry(i, m)?;
        if !m.flag("v4") {
            return self.unsupported(i);
        }
        if !matches!(m.ty()?, Ty::U32 | Ty::S32 | Ty::F32) {
            return self.unsupported(i);
        }
        let integer = match m.ty()? {
            Ty::S32 => true,
            Ty::F32 => false,
            _ => return m.error("coordinates are .s32 or .f32"),
        };
        let extra = match level {
            LevelFrom::Base => 0,
            LevelFrom::Number => 1,
            LevelFrom::Gradients => 2,
        };
        // Offsets and comparison values would follow.
        self.operand_count(i, 2 + extra, 2 + extra)?;
        let operand = self.operand(i, 1)?.clone();
        let ty = if integer { Ty::S32 } else { Ty::F32 };
        let (object, mut uses) = self.place(i, &operand, geometry, ty)?;
        match level {
            LevelFrom::Base => {}
            LevelFrom::Number => uses.push(self.src(i, 2, ty)?),
            LevelFrom::Gradients => {
                let (sides, _) = coordinates(geometry);
                for index in [2, 3] {
                    let list = self.elements(self.operand(i, index)?);
                    if list.len() < sides {
                        return m.error("a derivative has too few elements");
                    }
                    for operand in list.iter().take(sides) {
                        uses.push(self.value(operand, Ty::F32)?);
                    }
                }
            }
        }
        let (results, resident) = match self.operand(i, 0)?.clone() {
            Operand::Pair(results, resident) => (*results, Some(*resident)),
            results => (results, None),
        };
        let resident = resident.map(|operand| self.target(&operand, Class::Pred)).transpose()?;
        let list = self.elements(&results);
        if list.len() != 4 {
            return m.error("four destination registers are needed");
        }
        let defs = list.iter().map(|operand| self.target(operand, Class::R32)).collect::<Result<_>>()?;
        let op = TextureOp::Sample { geometry, integer, level, gather };
        let aux = AuxLow { defs, uses, data: Data::Texture(Box::new(op)) };
        let flag = i64::from(resident.is_some());
        self.emit_aux(common::<Sample>(), resident.unwrap_or(V::NONE), [object, V::NONE, V::NONE], flag, aux);
        Ok(())
    }

    fn surface(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        if !m.flag("b") {
            return self.unsupported(i);
        }
        let geometry = self.geometry(i, m)?;
        let count = match m.one_of(&["v2", "v4"]) {
            Some("v2") => 2,
            Some(_) => 4,
            None => 1,
        };
        m.drop_if(cache_hint);
        let clamp = match m.one_of(&["trap", "clamp", "zero"]) {
            Some("clamp") => Clamp::Clamp,
            Some("zero") => Clamp::Zero,
            _ => Clamp::Trap,
        };
        let ty = m.ty()?;
        let bytes = ty.bytes();
        if !matches!(ty, Ty::B8 | Ty::B16 | Ty::B32 | Ty::B64) || bytes as usize * count > 16 {
            return m.error("surfaces have elements of 1 to 16 bytes");
        }
        self.operand_count(i, 2, 2)?;
        let store = i.opcode == "sust";
        let operand = self.operand(i, usize::from(!store))?.clone();
        let (object, uses) = self.place(i, &operand, geometry, Ty::S32)?;
        let op = TextureOp::Surface { geometry, clamp, bytes };
        let mut aux = AuxLow { defs: Vec::new(), uses, data: Data::Texture(Box::new(op)) };
        let list = self.elements(self.operand(i, usize::from(store))?);
        if list.len() != count {
            return m.error("the number of registers does not fit");
        }
        for operand in &list {
            if store {
                aux.uses.push(self.value(operand, ty)?);
            } else {
                aux.defs.push(self.target(operand, Self::class_of(ty))?);
            }
        }
        self.emit_aux(common::<Surface>(), V::NONE, [object, V::NONE, V::NONE], 0, aux);
        Ok(())
    }

    fn ask(&mut self, i: &Instruction<'a>, m: &mut Modifiers<'_, 'a>) -> Result<()> {
        let Some(what) = m.take(query) else { return self.unsupported(i) };
        m.ty()?;
        self.operand_count(i, 2, 2)?;
        let object = match self.operand(i, 1)?.clone() {
            Operand::Address { base: Base::Name(name), offset: 0 } => self.object(i, &Operand::Name(name))?,
            _ => return m.error("an object in brackets is expected"),
        };
        let d = self.dst(i, 0, Ty::B32)?;
        let aux = AuxLow { data: Data::Texture(Box::new(TextureOp::Query(what))), ..AuxLow::default() };
        self.emit_aux(common::<Ask>(), d, [object, V::NONE, V::NONE], 0, aux);
        Ok(())
    }
}
