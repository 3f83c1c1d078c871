import{r as e,t}from"./chunk-SHT3W25Y-CcZo4V7t.js";import"./chunk-POPQ4Y6H-CDsCj0QK.js";import"./diagram-C93ZsNEG.js";import"./chunk-F27PBJKO-DXf53NI9.js";import"./chunk-GVQU2GXP-ClCVetmk.js";import"./chunk-4HAMMTFA-BSlL2OJ4.js";import"./chunk-P2QGCYS3-Cnt_o0hB.js";import"./chunk-GMAD6QVW-Dyct17It.js";import"./chunk-PWAF6VOD-BVtyGZAu.js";import"./chunk-75Z2AOVW-KaSkn-YU.js";import"./chunk-DU6HZSFF-D_9evbtd.js";import"./d3-selection-CQOeqU2O.js";import{n}from"./chunk-Y2CYZVJY-DsF7k-Jl.js";var r=t({defaultLayout:`swimlane`,styles:n(t=>`${e(t)}
  .swimlane.cluster rect {
    stroke: ${t.clusterBorder} !important;
  }
  [data-look="neo"].cluster rect {
    filter: none;
  }
`,`getStyles`)});export{r as diagram};