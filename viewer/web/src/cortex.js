// The 3-D part: one to three linked brains (or clouds of voxels) on one canvas.
import * as THREE from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { unpack } from "./arrays.js";
import { ROI_COLOURS, table } from "./colours.js";

const LIFT = 0.25; // mm that outlines stand above the surface, so that it does not cut them
// direction from the brain to the camera, and what is up
export const VIEWS = {
  behind: [[0, -1, -0.3], [0, 0, 1]],
  below: [[0, -0.35, -1], [0, 1, 0]],
  left: [[-1, 0, 0], [0, 0, 1]],
  right: [[1, 0, 0], [0, 0, 1]],
  inside: [[0, -1, 0.1], [0, 0, 1]],
};

function coordinates(packed) {
  return new Float32Array(unpack(packed));
}

export class Cortex {
  constructor(canvas, geometry) {
    this.canvas = canvas;
    this.data = geometry;
    this.isSurface = geometry.kind === "surface";
    this.renderer = new THREE.WebGLRenderer({ canvas, antialias: true, alpha: true, preserveDrawingBuffer: true });
    this.renderer.setScissorTest(true);
    this.camera = new THREE.PerspectiveCamera(30, 1, 1, 5000);
    this.controls = new OrbitControls(this.camera, canvas);
    this.controls.enablePan = false;
    this.controls.addEventListener("change", () => this.render());
    this.ray = new THREE.Raycaster();
    this.ray.params.Points.threshold = geometry.spacing / 2;
    this.panels = [];
    this.view = "behind";
    this.sheet = "inflated";
    this.atlas = null;
    if (this.isSurface) this.readSurface();
    else this.points = coordinates(geometry.positions);
  }

  readSurface() {
    this.weights = Object.fromEntries(["starts", "columns", "weights"].map((k) => [k, unpack(this.data[k])]));
    this.hemis = this.data.hemispheres.map((hemi) => ({
      name: hemi.name,
      sheets: Object.fromEntries(Object.entries(hemi.sheets).map(([k, v]) => [k, coordinates(v)])),
      faces: Object.fromEntries(Object.entries(hemi.faces).map(([k, v]) => [k, unpack(v)])),
      sulci: unpack(hemi.sulci),
    }));
    this.nVertices = this.hemis[0].sulci.length;
  }

  /** Values of voxels -> values of all vertices, left then right; NaN where there is no voxel. */
  toVertices(values) {
    if (!this.isSurface) return values;
    const { starts, columns, weights } = this.weights;
    const out = new Float32Array(starts.length - 1);
    for (let i = 0; i < out.length; i++) {
      let sum = 0;
      for (let k = starts[i]; k < starts[i + 1]; k++) sum += weights[k] * values[columns[k]];
      out[i] = starts[i] === starts[i + 1] ? NaN : sum;
    }
    return out;
  }

  /** The voxel with the largest part in a vertex; -1 for none. */
  voxelOf(vertex) {
    if (!this.isSurface) return vertex;
    const { starts, columns, weights } = this.weights;
    let best = -1;
    for (let k = starts[vertex]; k < starts[vertex + 1]; k++) if (best < 0 || weights[k] > weights[best]) best = k;
    return best < 0 ? -1 : columns[best];
  }

  setPanels(count) {
    if (this.panels.length === count) return;
    for (const panel of this.panels) {
      panel.scene.traverse((thing) => {
        thing.geometry?.dispose();
        thing.material?.dispose();
      });
    }
    this.panels = Array.from({ length: count }, () => this.makePanel());
    this.layOut();
  }

  makePanel() {
    const scene = new THREE.Scene();
    scene.add(new THREE.AmbientLight(0xffffff, 1.1));
    const light = new THREE.DirectionalLight(0xffffff, 2.0);
    scene.add(light, light.target);
    const panel = { scene, light, meshes: [] };
    if (!this.isSurface) {
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("position", new THREE.BufferAttribute(this.points, 3));
      geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(this.points.length), 3));
      const material = new THREE.PointsMaterial({
        size: this.data.spacing * 1.15, vertexColors: true, map: disc(), alphaTest: 0.5, transparent: false,
      });
      const cloud = new THREE.Points(geometry, material);
      scene.add(cloud);
      panel.meshes.push(cloud);
      return panel;
    }
    for (const hemi of this.hemis) {
      const group = new THREE.Group();
      const geometry = new THREE.BufferGeometry();
      geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(3 * this.nVertices), 3));
      const material = new THREE.MeshLambertMaterial({
        vertexColors: true, side: THREE.DoubleSide, polygonOffset: true, polygonOffsetFactor: 1, polygonOffsetUnits: 1,
      });
      const mesh = new THREE.Mesh(geometry, material);
      const lines = new THREE.LineSegments(
        new THREE.BufferGeometry(), new THREE.LineBasicMaterial({ vertexColors: true }),
      );
      group.add(mesh, lines);
      scene.add(group);
      panel.meshes.push({ group, mesh, lines, hemi });
    }
    return panel;
  }

  /** Put sheets, hemispheres and the camera where sheet and view say. */
  layOut() {
    let [towards, up] = VIEWS[this.view];
    const flat = this.sheet === "flat";
    if (flat) [towards, up] = [[0, 0, 1], [0, 1, 0]];
    const box = new THREE.Box3();
    for (const panel of this.panels) {
      if (!this.isSurface) {
        panel.meshes[0].geometry.computeBoundingBox();
        box.copy(panel.meshes[0].geometry.boundingBox);
        continue;
      }
      for (const part of panel.meshes) this.placeHemisphere(part, flat, box);
    }
    const centre = box.getCenter(new THREE.Vector3());
    this.extent = box.getSize(new THREE.Vector3());
    const direction = new THREE.Vector3(...towards).normalize();
    this.camera.up.set(...up);
    this.controls.target.copy(centre);
    this.direction = direction;
    this.controls.enableRotate = !flat;
    this.camera.position.copy(centre).addScaledVector(direction, this.distance());
    this.controls.update();
    this.outline();
    this.render();
  }

  distance() {
    const e = this.extent;
    const across = this.view === "left" || this.view === "right" ? e.y : e.x;
    const upright = this.view === "below" || this.sheet === "flat" ? e.y : e.z;
    const [, , w, h] = this.boxes()[0];
    const half = Math.tan((this.camera.fov * Math.PI) / 360);
    return Math.max(upright, (across * h) / w) / 2 / half * 1.12 + Math.max(e.x, e.y, e.z) / 4;
  }

  placeHemisphere(part, flat, box) {
    const isLeft = part.hemi.name === "left";
    const positions = part.hemi.sheets[this.sheet];
    const faces = part.hemi.faces[flat ? "flat" : "closed"];
    const geometry = part.mesh.geometry;
    geometry.setAttribute("position", new THREE.BufferAttribute(positions, 3));
    geometry.setIndex(new THREE.BufferAttribute(faces, 1));
    geometry.computeVertexNormals();
    geometry.computeBoundingBox();
    geometry.computeBoundingSphere();
    const own = geometry.boundingBox;
    const middle = own.getCenter(new THREE.Vector3());
    const group = part.group;
    group.rotation.set(0, 0, 0);
    group.position.set(0, 0, 0);
    if (this.view === "inside" && !flat) group.rotation.z = isLeft ? -Math.PI / 2 : Math.PI / 2;
    group.updateMatrixWorld(true);
    const placed = new THREE.Box3().setFromObject(part.mesh);
    const size = placed.getSize(new THREE.Vector3());
    const at = placed.getCenter(new THREE.Vector3());
    const apart = size.x / 2 + 4;
    // "left" and "right" look at one outer side: the other hemisphere stays behind it
    group.position.set((isLeft ? -apart : apart) - at.x, -at.y, flat ? 0 : middle.z - at.z);
    group.updateMatrixWorld(true);
    box.union(new THREE.Box3().setFromObject(part.mesh));
  }

  /** Lines where the labels of the chosen atlas change (marching over triangles). */
  outline() {
    if (!this.isSurface) return;
    const labels = this.atlas && this.atlas.vertices;
    for (const panel of this.panels) {
      panel.meshes.forEach((part, side) => {
        const [points, colours] = [[], []];
        const positions = part.mesh.geometry.getAttribute("position").array;
        const normals = part.mesh.geometry.getAttribute("normal").array;
        const faces = part.mesh.geometry.getIndex().array;
        for (let f = 0; labels && f < faces.length; f += 3) {
          const corner = [faces[f], faces[f + 1], faces[f + 2]];
          const label = corner.map((v) => labels[side * this.nVertices + v]);
          if (label[0] === label[1] && label[1] === label[2]) continue;
          const middles = [];
          for (const [a, b] of [[0, 1], [1, 2], [2, 0]]) {
            if (label[a] !== label[b]) middles.push([corner[a], corner[b]]);
          }
          const shown = label.find((value) => value > 0);
          const colour = new THREE.Color(ROI_COLOURS[(shown - 1) % ROI_COLOURS.length]);
          const at = middles.map(([a, b]) => [0, 1, 2].map((k) => 
            (positions[3 * a + k] + positions[3 * b + k]) / 2 + LIFT * (normals[3 * a + k] + normals[3 * b + k])));
          for (let k = 0; k + 1 < at.length; k++) {
            points.push(...at[k], ...at[k + 1]);
            colours.push(colour.r, colour.g, colour.b, colour.r, colour.g, colour.b);
          }
        }
        const lines = part.lines.geometry;
        lines.setAttribute("position", new THREE.Float32BufferAttribute(points, 3));
        lines.setAttribute("color", new THREE.Float32BufferAttribute(colours, 3));
      });
    }
  }

  setAtlas(atlas) {
    this.atlas = atlas;
    this.outline();
  }

  /** Paint one panel. scale: {limit, map, sequential, threshold}. */
  paint(number, vertices, scale) {
    const colours = table(scale.map);
    const panel = this.panels[number];
    panel.meshes.forEach((part, side) => {
      const attribute = (part.mesh || part).geometry.getAttribute("color");
      const first = this.isSurface ? side * this.nVertices : 0;
      for (let i = 0; i < attribute.count; i++) {
        const value = vertices[first + i];
        if (!Number.isFinite(value) || Math.abs(value) < scale.threshold) {
          const grey = this.isSurface ? (part.hemi.sulci[i] > 0 ? 0.34 : 0.5) : 0.45;
          attribute.setXYZ(i, grey, grey, grey);
          continue;
        }
        const t = scale.sequential ? value / scale.limit : value / scale.limit / 2 + 0.5;
        const at = 3 * Math.round(255 * Math.min(Math.max(t, 0), 1));
        const c = new THREE.Color().setRGB(colours[at], colours[at + 1], colours[at + 2], THREE.SRGBColorSpace);
        attribute.setXYZ(i, c.r, c.g, c.b);
      }
      attribute.needsUpdate = true;
    });
  }

  /** [x, y, width, height] of each panel in CSS pixels; below each other on narrow pages. */
  boxes() {
    const [w, h] = [this.canvas.clientWidth || 1, this.canvas.clientHeight || 1];
    const n = Math.max(this.panels.length, 1);
    return Array.from({ length: n }, (_, i) =>
      w < 560 ? [0, (i * h) / n, w, h / n] : [(i * w) / n, 0, w / n, h]);
  }

  resize() {
    const [w, h] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!w || !h) return;
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
    this.renderer.setSize(w, h, false);
    if (this.panels.length) this.layOut();
  }

  render() {
    const height = this.canvas.clientHeight;
    this.boxes().forEach(([x, y, w, h], i) => {
      const panel = this.panels[i];
      if (!panel) return;
      this.camera.aspect = w / h;
      this.camera.updateProjectionMatrix();
      panel.light.position.copy(this.camera.position);
      panel.light.target.position.copy(this.controls.target);
      this.renderer.setViewport(x, height - y - h, w, h);
      this.renderer.setScissor(x, height - y - h, w, h);
      this.renderer.render(panel.scene, this.camera);
    });
  }

  /** What lies under a place of the canvas (CSS pixels): {panel, vertex} or null. */
  pick(px, py) {
    const boxes = this.boxes();
    const number = boxes.findIndex(([x, y, w, h]) => px >= x && px < x + w && py >= y && py < y + h);
    if (number < 0 || !this.panels[number]) return null;
    const [x, y, w, h] = boxes[number];
    const at = new THREE.Vector2((2 * (px - x)) / w - 1, 1 - (2 * (py - y)) / h);
    this.camera.aspect = w / h;
    this.camera.updateProjectionMatrix();
    this.ray.setFromCamera(at, this.camera);
    const panel = this.panels[number];
    if (!this.isSurface) {
      const hit = this.ray.intersectObject(panel.meshes[0])[0];
      return hit ? { panel: number, vertex: hit.index } : null;
    }
    const hits = panel.meshes
      .map((part, side) => ({ side, part, hit: this.ray.intersectObject(part.mesh)[0] }))
      .filter(({ hit }) => hit)
      .sort((a, b) => a.hit.distance - b.hit.distance);
    if (!hits.length) return null;
    const { side, part, hit } = hits[0];
    const place = part.group.worldToLocal(hit.point.clone());
    const positions = part.mesh.geometry.getAttribute("position");
    // the corner of the face that is nearest to the place
    const corners = [hit.face.a, hit.face.b, hit.face.c];
    const far = corners.map((v) => new THREE.Vector3().fromBufferAttribute(positions, v).distanceTo(place));
    return { panel: number, vertex: side * this.nVertices + corners[far.indexOf(Math.min(...far))] };
  }

  turn(dx, dy) {
    const offset = this.camera.position.clone().sub(this.controls.target);
    offset.applyAxisAngle(this.camera.up, dx);
    const side = new THREE.Vector3().crossVectors(offset, this.camera.up).normalize();
    offset.applyAxisAngle(side, dy);
    this.camera.position.copy(this.controls.target).add(offset);
    this.controls.update();
    this.render();
  }

  zoom(factor) {
    const offset = this.camera.position.clone().sub(this.controls.target).multiplyScalar(factor);
    this.camera.position.copy(this.controls.target).add(offset);
    this.controls.update();
    this.render();
  }
}

/** A round picture, so that voxels are no squares. */
function disc() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fff";
  pen.beginPath();
  pen.arc(32, 32, 30, 0, 7);
  pen.fill();
  return new THREE.CanvasTexture(canvas);
}
